"""The cache of decoded images: in memory, then in a file."""

from __future__ import annotations

import errno
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tlkit.data import image_cache
from tlkit.data.image_cache import ImageCache
from tlkit.utils.directories import cache_folder

ARRAYS = [np.random.default_rng(number).integers(0, 256, (5, 7 + number, 3), np.uint8) for number in range(8)]
SIZES = [array.nbytes for array in ARRAYS]


def cached(cache: ImageCache) -> list[int]:
    """Returns the numbers of the arrays that are cached, each of which must be as it was put."""
    arrays = {number: cache.get(number) for number in range(len(ARRAYS))}
    assert all(np.array_equal(array, ARRAYS[number]) for number, array in arrays.items() if array is not None)
    return [number for number, array in arrays.items() if array is not None]


def filled(cache: ImageCache) -> ImageCache:
    for number, array in enumerate(ARRAYS):
        cache.put(number, array)
    return cache


def test_what_does_not_fit_into_memory_is_in_a_file_that_disappears() -> None:
    cache = filled(ImageCache(memory=sum(SIZES[:3]), disk=sum(SIZES[3:])))
    assert cached(cache) == list(range(8))
    assert not list(cache_folder().iterdir())


def test_what_fits_nowhere_is_not_cached() -> None:
    assert cached(filled(ImageCache(memory=0, disk=sum(SIZES[:4])))) == [0, 1, 2, 3]
    assert cached(filled(ImageCache(memory=0, disk=0))) == []


def test_the_file_may_grow_after_it_has_been_read() -> None:
    cache = ImageCache(memory=0)
    cache.put(0, ARRAYS[0])
    first = cache.get(0)
    filled(cache)
    assert cached(cache) == list(range(8))
    assert first is not None and np.array_equal(first, ARRAYS[0])


def test_a_full_disk_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    real: Any = image_cache.tempfile.TemporaryFile

    class Full:
        """A real file on a disk that is full after two arrays: a full disk itself cannot be made."""

        def __init__(self, dir: Path) -> None:
            self._file, self._writes = real(dir=dir), 0

        def write(self, content: bytes) -> int:
            self._writes += 1
            if self._writes > 2:
                raise OSError(errno.ENOSPC, "No space left on device")
            return int(self._file.write(content))

        def __getattr__(self, name: str) -> Any:
            return getattr(self._file, name)

    monkeypatch.setattr(image_cache, "tempfile", SimpleNamespace(TemporaryFile=Full))
    assert cached(filled(ImageCache(memory=0))) == [0, 1]


def test_where_files_cannot_be_mapped_only_memory_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENODEV, "no such device")

    monkeypatch.setattr(image_cache.mmap, "mmap", refuse)
    assert cached(filled(ImageCache(memory=SIZES[0]))) == [0]
