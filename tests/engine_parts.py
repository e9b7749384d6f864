"""Engines for tests: in this process, but with everything pickled, and with blocks that are lost."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Generator, Iterable
from typing import Any

import tlkit


@tlkit.hookimpl
def tlkit_engines(register: tlkit.Register) -> None:
    register("pickling", pickling)
    register("repeating", repeating)


def pickling(*, lost: int = 0, unfinished: int = 0, always: bool = False) -> tlkit.Engine:
    """Computes in this process what has been pickled.

    Args:
        lost: how many blocks are lost before they are computed.
        unfinished: how many blocks after those are computed, but lost before that is known.
        always: whether blocks are lost in every call; otherwise in the first one.
    """
    calls = 0

    def engine(
        start: Callable[[int | None], Callable[[Any], Any]],
        blocks: Iterable[Any],
        note: Callable[[str], object],
        /,
    ) -> Generator[Any]:
        nonlocal calls
        calls += 1
        loses = always or calls == 1
        work = pickle.loads(pickle.dumps(start))(None)
        for number, block in enumerate(blocks):
            if loses and number < lost:
                continue
            done = work(pickle.loads(pickle.dumps(block)))
            if not (loses and number < lost + unfinished):
                yield done

    return engine


def repeating() -> tlkit.Engine:
    """Computes in this process, with three threads; yields each block twice, which is a mistake."""

    def engine(
        start: Callable[[int | None], Callable[[Any], Any]],
        blocks: Iterable[Any],
        note: Callable[[str], object],
        /,
    ) -> Generator[Any]:
        work = start(3)
        for block in blocks:
            yield from [work(block)] * 2

    return engine
