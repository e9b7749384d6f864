"""Runs commands in a pseudo-terminal, and keeps every screen that a user would have seen."""

from __future__ import annotations

import fcntl
import os
import re
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import pyte

#: Characters given to the emulated terminal at once: updates of the display are seen half done, too.
CHUNK = 40
LINES = 24
#: What only bars consist of.
BAR = re.compile("[━╸╺]")


class Terminal:
    """A process in a terminal of its own.

    Attributes:
        screens: the lines of each screen that was different from the one before, without empty lines at the
            end.
    """

    def __init__(
        self,
        command: Sequence[str],
        columns: int,
        *,
        folder: Path | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Starts the process; both of its outputs are the terminal."""
        self.screens: list[list[str]] = []
        self._screen = pyte.HistoryScreen(columns, LINES, history=10_000)
        self._stream = pyte.ByteStream(self._screen)
        self._master, terminal = os.openpty()
        fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, columns, 0, 0))
        # pytest-xdist sets COLUMNS, which would count instead of the terminal's own
        inherited = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
        self.process = subprocess.Popen(
            command,
            cwd=folder,
            env={**inherited, "TERM": "xterm-256color", **(environment or {})},
            preexec_fn=lambda: os.login_tty(terminal),
        )
        os.close(terminal)

    def wait_for(self, text: str, seconds: float = 300) -> None:
        """Reads until a text has been on the screen, or above it."""
        end = time.monotonic() + seconds
        while not any(text in line for line in self.lines()):
            if time.monotonic() > end or not self._read():
                raise AssertionError(f"{text!r} was not shown:\n" + "\n".join(self.lines()))

    def press(self, keys: str) -> None:
        """Types; ``"\\x03"`` is Ctrl-C."""
        os.write(self._master, keys.encode())

    def wait(self, seconds: float = 300) -> int:
        """Reads until the process has ended; returns its exit code."""
        end = time.monotonic() + seconds
        while self._read():
            if time.monotonic() > end:
                self.process.send_signal(signal.SIGKILL)
                raise AssertionError("the process does not end:\n" + "\n".join(self.lines()))
        os.close(self._master)
        return self.process.wait()

    def lines(self) -> list[str]:
        """Returns the lines on the screen and those above it, as a user who scrolls sees them."""
        above = [
            "".join(row[column].data for column in range(self._screen.columns)).rstrip()
            for row in self._screen.history.top
        ]
        return above + self._visible()

    def _visible(self) -> list[str]:
        lines = [line.rstrip() for line in self._screen.display]
        while lines and not lines[-1]:
            lines.pop()
        return lines

    def _read(self) -> bool:
        """Reads what there is within half a second; returns whether the process may write more."""
        if not select.select([self._master], [], [], 0.5)[0]:
            return True
        try:
            output = os.read(self._master, 1 << 16)
        except OSError:  # the process has closed the terminal
            return False
        for start in range(0, len(output), CHUNK):
            self._stream.feed(output[start : start + CHUNK])
            if (lines := self._visible()) != (self.screens[-1] if self.screens else []):
                self.screens.append(lines)
        return bool(output)


def bar_lines(screen: Sequence[str]) -> list[str]:
    """Returns the lines of a screen that show a bar."""
    return [line for line in screen if BAR.search(line)]


def assert_calm(screen: Sequence[str], columns: int, bars: int = 1) -> None:
    """Checks that a screen has so many bars at most, in lines of their own at the bottom."""
    shown = bar_lines(screen)
    text = "\n".join(screen)
    assert len(shown) <= bars, text
    # the last of several may be half drawn
    assert not shown or len(screen) - list(screen).index(shown[0]) <= bars, text
    assert all(len(line) <= columns - 3 for line in shown), text
