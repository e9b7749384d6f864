"""How Ctrl-C ends a command."""

from __future__ import annotations

import signal
from types import FrameType

#: Exit code of a command that Ctrl-C ended.
INTERRUPTED = 130


class Interrupted(Exception):
    """Ctrl-C ended a run; the message says how it goes on."""


def interrupt_once() -> None:
    """Lets the first Ctrl-C interrupt this process, and ignores later ones while it cleans up."""
    # a process in the background of a script ignores it from the start
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _interrupt)


def _interrupt(number: int, frame: FrameType | None) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.default_int_handler(number, frame)
