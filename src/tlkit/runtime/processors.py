"""How many threads this process uses; it does not load torch."""

from __future__ import annotations

import os

import psutil

#: The most threads of each kind, where this process shares its computer with others.
_limit: int | None = None


def thread_limit() -> int | None:
    """Returns the most threads of each kind that this process uses; None: no limit."""
    return _limit


def limit_threads(count: int | None) -> None:
    """Sets the most threads of each kind that this process uses."""
    global _limit
    _limit = count


def reader_threads() -> int:
    """Returns how many threads read images: one per processor that this process may use."""
    if _limit is not None:
        return _limit
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def compute_threads() -> int:
    """Returns how many threads compute: one per core, or what OMP_NUM_THREADS says, as torch does."""
    if _limit is not None:
        return _limit
    if (number := os.environ.get("OMP_NUM_THREADS", "")).isdecimal():
        return max(1, int(number))
    return min(reader_threads(), psutil.cpu_count(logical=False) or reader_threads())
