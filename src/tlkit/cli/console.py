"""Text, tables and progress on the console: the only module that imports rich.

A pipe gets plain lines, without colours or moving bars.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

Tick = Callable[[int], None]

#: Seconds between two lines of progress in a pipe.
LINE_INTERVAL = 10.0
#: Columns of a table in a pipe.
PIPE_WIDTH = 160


def console(*, stderr: bool = False) -> Console:
    """Returns a console on standard output or standard error; wide where it is not a terminal."""
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() else PIPE_WIDTH
    return Console(stderr=stderr, width=width, highlight=False, soft_wrap=True)


def say(text: str = "", *, style: str | None = None, stderr: bool = False) -> None:
    """Prints text as it is: square brackets in it are not markup."""
    console(stderr=stderr).print(text, style=style, markup=False)


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
    """Prints a table; a column whose name ends with ``>`` is aligned to the right."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    grid = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, title_style="bold")
    for column in columns:
        name = column.removesuffix(">")
        grid.add_column(name, justify="right" if column.endswith(">") else "left", overflow="fold")
    for row in rows:
        grid.add_row(*(Text(cell) for cell in row))
    console().print(grid)


@contextmanager
def progress(task: str, total: int, unit: str) -> Iterator[Tick]:
    """Shows progress with its rate and the time left; yields a function to call with how much was done."""
    with _bar(task, total, unit) if sys.stderr.isatty() else _lines(task, total, unit) as tick:
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


@contextmanager
def _bar(task: str, total: int, unit: str) -> Iterator[Tick]:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    began, done = time.monotonic(), 0
    with Progress(*columns, console=console(stderr=True), transient=True) as bar:
        row = bar.add_task(task, total=total, rate="")

        def tick(count: int) -> None:
            nonlocal done
            done += count
            rate = done / max(time.monotonic() - began, 1e-9)
            bar.update(row, advance=count, rate=format_rate(rate, unit))

        yield tick


@contextmanager
def _lines(task: str, total: int, unit: str) -> Iterator[Tick]:
    began = last = time.monotonic()
    done = 0

    def tick(count: int) -> None:
        nonlocal done, last
        done += count
        now = time.monotonic()
        if now - last >= LINE_INTERVAL and done < total:
            last = now
            rate = done / (now - began)
            left = (total - done) / rate
            say(f"{task}: {done:,} of {total:,} {unit}, {format_rate(rate)}, {left:,.0f} s left", stderr=True)

    yield tick
    seconds = time.monotonic() - began
    if seconds >= 1:
        say(f"{task}: {done:,} {unit} in {seconds:,.1f} s, {format_rate(done / seconds)}", stderr=True)
