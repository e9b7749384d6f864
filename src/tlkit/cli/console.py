"""Text, tables and progress on the console: the only module that imports rich.

In a terminal, the bars of what is in progress stay at the bottom and text goes above them. A pipe gets plain
lines, without colours or moving bars.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING

from tlkit.utils.formatting import format_bytes

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.live import Live

Tick = Callable[[int], None]

#: Seconds between two lines of progress in a pipe.
LINE_INTERVAL = 10.0
#: Columns of a table in a pipe.
PIPE_WIDTH = 160
#: Columns of a bar in a terminal that is wide enough.
BAR_WIDTH = 40
#: Columns on the right of a bar: the ``^C`` that a terminal prints must not begin another line.
BAR_MARGIN = 3
#: Seconds between two drawings of the bars.
BAR_INTERVAL = 0.1


def console(*, stderr: bool = False) -> Console:
    """Returns a console on standard output or standard error; wide where it is not a terminal.

    While bars are shown in its terminal, it is the bars' own console, which prints above them.
    """
    from rich.console import Console

    if _bars.live is not None and (stderr or _bars.share_stdout):
        return _bars.live.console
    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() else PIPE_WIDTH
    return Console(stderr=stderr, width=width, highlight=False, soft_wrap=True)


def say(
    text: str = "", *, style: str | None = None, stderr: bool = False, hanging: int | None = None
) -> None:
    """Prints text as it is: square brackets in it are not markup.

    Args:
        text: the text.
        style: rich's name of a style.
        stderr: print on standard error.
        hanging: in a terminal, wrap at words, and indent all lines but the first by as many columns. Text
            that is not wrapped, such as a path, can be copied from a terminal as one line.
    """
    target = console(stderr=stderr)
    if hanging is not None and target.is_terminal:
        from rich.text import Text

        lines = Text(text).wrap(target, target.width - hanging)
        text = ("\n" + " " * hanging).join(line.plain for line in lines)
    target.print(text, style=style, markup=False)


def say_interrupted(text: str) -> None:
    """Prints how Ctrl-C ended a command, over the ``^C`` that a terminal prints."""
    if sys.stderr.isatty():
        sys.stderr.write("\r")
    say(text, stderr=True, hanging=2)


def json_line(values: Mapping[str, object]) -> None:
    """Prints a JSON object on a line of its own, and flushes, so that a reader gets it at once."""
    text = json.dumps(values, ensure_ascii=False)
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:  # a name that is not UTF-8, or a terminal without some character
        text = json.dumps(values)
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def table(title: str | None, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Prints a title, and a table below it; a column whose name ends with ``>`` is aligned to the right."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    if title is not None:  # rich's own titles are as narrow as their tables
        say(title, style="bold", hanging=0)
    grid = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        name = column.removesuffix(">")
        grid.add_column(name, justify="right" if column.endswith(">") else "left", overflow="fold")
    for row in rows:
        grid.add_row(*(Text(cell) for cell in row))
    console().print(grid, soft_wrap=False)


@contextmanager
def progress(task: str, total: int, unit: str, done: int = 0) -> Iterator[Tick]:
    """Shows progress with its rate and the time left.

    Args:
        task: what is done.
        total: how many units that is.
        unit: what is counted, in the plural.
        done: how many units were done before, by a process that was interrupted.

    Yields:
        A function to call with how many units were done.
    """
    work = _Task(task, total, unit, resumed=done)
    is_interactive = sys.stderr.isatty() and not console(stderr=True).is_dumb_terminal
    with _bars.show(work) if is_interactive else _lines(work) as tick:
        yield tick


@contextmanager
def counting(task: str, unit: str) -> Iterator[Tick]:
    """Shows progress as `progress` does where the total is unknown: in lines, and only if output is piped."""
    began = last = time.monotonic()
    done = 0

    def tick(count: int) -> None:
        nonlocal done, last
        done += count
        now = time.monotonic()
        if now - last >= LINE_INTERVAL and not sys.stdout.isatty():
            last = now
            say(f"{task}: {done:,} {unit}, {done / (now - began):,.0f}/s", stderr=True)

    yield tick


def format_rate(per_second: float, unit: str = "") -> str:
    """Formats a rate per second, or per minute where it is less than one per second."""
    rate, interval = (per_second, "s") if per_second >= 1 else (60 * per_second, "min")
    return f"{rate:,.0f} {unit}/{interval}" if unit else f"{rate:,.0f}/{interval}"


@dataclass
class _Task:
    """A task in progress.

    Attributes:
        name: what is done.
        total: how many units that is.
        unit: what is counted, in the plural.
        resumed: how many units were done before it began.
        done: how many are done, those included.
        began: when it began, in seconds of `time.monotonic`.
    """

    name: str
    total: int
    unit: str
    resumed: int
    done: int = field(init=False)
    began: float = field(init=False, default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self.done = self.resumed

    def add(self, count: int) -> None:
        """Counts units that were done."""
        self.done += count

    @property
    def seconds(self) -> float:
        """How long it has taken so far."""
        return time.monotonic() - self.began

    @property
    def rate(self) -> float:
        """Units per second, without those that were done before it began."""
        return (self.done - self.resumed) / max(self.seconds, 1e-9)

    @property
    def seconds_left(self) -> float:
        """How long the rest will take at this rate."""
        return max(0, self.total - self.done) / self.rate


class _Bars:
    """The bars of the tasks in progress, at the bottom of the terminal; none is left when its task ends.

    They are drawn by the thread that reports progress: rich's own thread could draw between the two halves of
    a text that is printed.

    Attributes:
        live: draws them; None while nothing is in progress.
        share_stdout: whether standard output is the same terminal.
    """

    def __init__(self) -> None:
        self.live: Live | None = None
        self.share_stdout = False
        self._tasks: list[_Task] = []
        self._drawn = 0.0

    @contextmanager
    def show(self, task: _Task) -> Iterator[Tick]:
        """Shows a task below those that are in progress."""
        live = self.live = self.live or self._make_live()
        self._tasks.append(task)

        def tick(count: int) -> None:
            task.add(count)
            now = time.monotonic()
            if now - self._drawn >= BAR_INTERVAL:
                self._drawn = now
                live.refresh()

        try:
            live.start()
            live.refresh()
            yield tick
        finally:
            self._tasks.remove(task)
            live.refresh()
            if not self._tasks:
                live.stop()
                self.live = None

    def _make_live(self) -> Live:
        from rich.live import Live

        self.share_stdout = sys.stdout.isatty() and os.path.sameopenfile(
            sys.stdout.fileno(), sys.stderr.fileno()
        )
        return Live(
            console=console(stderr=True),
            get_renderable=self._render,
            auto_refresh=False,
            transient=True,
            redirect_stdout=self.share_stdout,
        )

    def _render(self) -> RenderableType:
        """Returns a row for each task: its name, the bar, how much is done, the rate and the time left."""
        from rich.constrain import Constrain
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        grid = Table.grid(padding=(0, 1))
        # where the terminal is narrow, these two columns become narrower
        grid.add_column()
        grid.add_column(max_width=BAR_WIDTH)
        for style in ("progress.download", "progress.data.speed", "progress.remaining"):
            grid.add_column(justify="right", no_wrap=True, style=style)
        for task in tuple(self._tasks):
            name = Text(task.name, no_wrap=True, overflow="ellipsis")
            grid.add_row(name, ProgressBar(task.total, task.done), *_describe(task))
        return Constrain(grid, console(stderr=True).width - BAR_MARGIN)


_bars = _Bars()


def _describe(task: _Task) -> tuple[str, str, str]:
    """Describes how much is done, the rate and the time left; their widths stay the same meanwhile."""
    is_bytes = task.unit == "bytes"
    done, total = (format_bytes(count) if is_bytes else f"{count:,}" for count in (task.done, task.total))
    rate = left = ""
    if task.rate:
        rate = f"{format_bytes(round(task.rate))}/s" if is_bytes else format_rate(task.rate, task.unit)
        left = f"{timedelta(seconds=round(task.seconds_left))} left"
    widest_rate = "999.9 MB/s" if is_bytes else f"9,999 {task.unit}/s"
    return (
        f"{done}/{total}".rjust(2 * len(total) + 1),
        rate.rjust(len(widest_rate)),
        left.rjust(len("0:00:00 left")),
    )


@contextmanager
def _lines(task: _Task) -> Iterator[Tick]:
    last = task.began

    def tick(count: int) -> None:
        nonlocal last
        task.add(count)
        now = time.monotonic()
        if now - last >= LINE_INTERVAL and task.done < task.total:
            last = now
            done = f"{task.done:,} of {task.total:,} {task.unit}"
            say(
                f"{task.name}: {done}, {format_rate(task.rate)}, {task.seconds_left:,.0f} s left", stderr=True
            )

    yield tick
    if task.seconds >= 1:
        done = f"{task.done - task.resumed:,} {task.unit} in {task.seconds:,.1f} s"
        say(f"{task.name}: {done}, {format_rate(task.rate)}", stderr=True)
