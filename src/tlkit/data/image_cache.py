"""Caches decoded images within a process: in memory while they fit, then in a memory-mapped file."""

from __future__ import annotations

import mmap
import shutil
import tempfile
import threading
import weakref
from collections.abc import Hashable
from math import prod
from typing import IO

import numpy as np
from numpy.typing import NDArray

from tlkit.runtime.distributed import process_state
from tlkit.runtime.memory import main_memory
from tlkit.utils.directories import cache_folder

Array = NDArray[np.uint8]


class ImageCache:
    """Caches uint8 arrays by key, as many as fit; several threads may use it.

    The file is in the cache folder, has no name there, and disappears with the process.
    """

    def __init__(self, memory: int | None = None, disk: int | None = None) -> None:
        """Sets the limits in bytes; by default a quarter of what is free, divided among the processes."""
        self._memory = _share(main_memory().free) if memory is None else memory
        self._disk = disk
        self._arrays: dict[Hashable, Array] = {}
        self._offsets: dict[Hashable, tuple[int, tuple[int, ...]]] = {}
        self._file: IO[bytes] | None = None
        self._end = 0
        self._map: mmap.mmap | None = None
        self._lock = threading.Lock()

    def get(self, key: Hashable) -> Array | None:
        """Returns the array of that key, which must not be written to; None if it is not cached."""
        array = self._arrays.get(key)
        stored = self._offsets.get(key) if array is None else None
        if stored is None:
            return array
        start, shape = stored
        count = prod(shape)
        try:
            mapped = self._mapped(start + count)
        except OSError:
            return None  # the file system cannot map files
        return np.frombuffer(mapped, np.uint8, count, start).reshape(shape)

    def put(self, key: Hashable, array: Array) -> None:
        """Caches an array, unless there is room for it neither in memory nor on disk."""
        with self._lock:
            if key in self._arrays or key in self._offsets:
                return
            if array.nbytes <= self._memory:
                self._memory -= array.nbytes
                self._arrays[key] = array
            elif self._write(array):
                self._offsets[key] = (self._end - array.nbytes, array.shape)

    def _write(self, array: Array) -> bool:
        try:
            cache_folder().mkdir(parents=True, exist_ok=True)
            if self._disk is None:
                self._disk = _share(shutil.disk_usage(cache_folder()).free)
            if self._end + array.nbytes > self._disk:
                return False
            if self._file is None:
                self._file = tempfile.TemporaryFile(dir=cache_folder())
                weakref.finalize(self, self._file.close)
            self._file.seek(self._end)
            self._file.write(np.ascontiguousarray(array).data)
            self._file.flush()
        except OSError:
            self._disk = 0  # the disk is full or read-only; what is cached stays readable
            return False
        self._end += array.nbytes
        return True

    def _mapped(self, end: int) -> mmap.mmap:
        """Returns the mapped file, at least up to `end`."""
        with self._lock:
            if self._map is None or len(self._map) < end:
                assert self._file is not None  # an array was stored
                self._map = mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_READ)
            return self._map


def _share(free: int) -> int:
    """Returns what one process may use of what all have: a quarter, divided among them."""
    processes: int = process_state().num_processes
    return free // 4 // processes
