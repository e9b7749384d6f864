"""Leases: which columns of a shared feature store other processes use or compute.

Locks are files that the operating system releases when a process ends, however it ends.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

#: Seconds between two looks at a column that another process computes.
POLL = 0.2


class Lease:
    """The columns that this process uses; other processes do not remove them while it runs.

    Attributes:
        file: names them, from the first one on until they are given up.
    """

    def __init__(self, folder: Path) -> None:
        """Prepares a lease in the folder of leases; nothing is written before a column is added."""
        self._folder = folder
        self._keys: set[str] = set()
        self._lock: FileLock | None = None
        self.file = folder / f"{uuid.uuid4().hex}.columns"

    def add(self, key: str) -> None:
        """Adds a column, before it is opened. Where the store is read-only, nobody could remove it either."""
        if key in self._keys:
            return
        self._keys.add(key)
        with suppress(OSError):
            self._folder.mkdir(parents=True, exist_ok=True)
            with removal(self._folder):
                if self._lock is None:
                    self._lock = FileLock(self.file.with_suffix(".lock"))
                    self._lock.acquire(timeout=0)
                with self.file.open("a", encoding="utf-8") as file:
                    file.write(f"{key}\n")

    def release(self) -> None:
        """Gives all columns up."""
        self._keys.clear()
        if self._lock is not None:
            self._lock.release()
            _remove(self.file)
            self._lock = None


def leased(folder: Path) -> set[str]:
    """Returns the columns that running processes use; leases that killed ones left are removed.

    Raises:
        OSError: the folder cannot be written.
    """
    keys: set[str] = set()
    for path in folder.glob("*.columns"):
        lock = FileLock(path.with_suffix(".lock"))
        try:
            with lock.acquire(timeout=0):
                _remove(path)
        except Timeout:
            with suppress(FileNotFoundError):  # released meanwhile
                keys.update(path.read_text(encoding="utf-8").split())
    return keys


@contextmanager
def removal(folder: Path) -> Iterator[None]:
    """Keeps columns from being removed while one is leased, and the other way round.

    Raises:
        OSError: the folder cannot be written.
    """
    with FileLock(folder / "removal.lock"):
        yield


@contextmanager
def computing(folder: Path, names: Collection[str], wait: Callable[[], object]) -> Iterator[None]:
    """Computes columns alone: of several processes, the others wait and then find them done.

    Args:
        folder: the folder of leases.
        names: of the columns, or of parts of them.
        wait: called once if another process computes one of them.

    Raises:
        OSError: the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    told = False
    with ExitStack() as locks:
        for name in sorted(names):  # in one order, so that no two processes wait for each other
            lock = FileLock(folder / f"{name}.computing")
            try:
                lock.acquire(timeout=0)
            except Timeout:
                if not told:
                    wait()
                told = True
                lock.acquire(poll_interval=POLL)
            locks.callback(lock.release)
        yield


def _remove(columns: Path) -> None:
    for path in (columns, columns.with_suffix(".lock")):
        path.unlink(missing_ok=True)
