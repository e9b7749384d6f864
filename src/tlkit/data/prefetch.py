"""Prepares batches in threads, ahead of their use."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

from tlkit.runtime.processors import reader_threads

#: Batches that are prepared while one is used.
PREFETCHED = 3
Key = TypeVar("Key")
Value = TypeVar("Value")


def prefetch(
    batches: Iterable[tuple[Key, Sequence[Callable[[], Value]]]], ahead: int = PREFETCHED
) -> Iterator[tuple[Key, list[Future[Value]]]]:
    """Runs the tasks of each batch in threads, while earlier batches are used.

    Args:
        batches: for each batch a key and its tasks; consumed only as far as it is read ahead.
        ahead: batches that are started before the first of them is used up.

    Yields:
        For each batch its key and its tasks' futures, in order.
    """
    pending: deque[tuple[Key, list[Future[Value]]]] = deque()
    upcoming = iter(batches)
    pool = ThreadPoolExecutor(reader_threads())
    try:
        while True:
            for key, tasks in islice(upcoming, ahead + 1 - len(pending)):
                pending.append((key, [pool.submit(task) for task in tasks]))
            if not pending:
                break
            yield pending.popleft()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
