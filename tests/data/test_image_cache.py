"""Arrays that are wanted again: in memory, then in a file."""

from __future__ import annotations

import errno
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tlkit.data import image_cache as shelf_module
from tlkit.data.image_cache import ImageCache
from tlkit.utils.directories import cache_folder

ARRAYS = [np.random.default_rng(number).integers(0, 256, (5, 7 + number, 3), np.uint8) for number in range(8)]
LENGTHS = [array.nbytes for array in ARRAYS]


def held(shelf: ImageCache) -> list[int]:
    """The arrays that come back, each as it was put."""
    found = {number: shelf.get(number) for number in range(len(ARRAYS))}
    assert all(np.array_equal(array, ARRAYS[number]) for number, array in found.items() if array is not None)
    return [number for number, array in found.items() if array is not None]


def filled(shelf: ImageCache) -> ImageCache:
    for number, array in enumerate(ARRAYS):
        shelf.put(number, array)
    return shelf


def test_what_memory_has_no_room_for_is_in_a_file_that_leaves_nothing() -> None:
    shelf = filled(ImageCache(memory=sum(LENGTHS[:3]), disk=sum(LENGTHS[3:])))
    assert held(shelf) == list(range(8))
    assert not list(cache_folder().iterdir())


def test_what_fits_nowhere_is_not_held() -> None:
    assert held(filled(ImageCache(memory=0, disk=sum(LENGTHS[:4])))) == [0, 1, 2, 3]
    assert held(filled(ImageCache(memory=0, disk=0))) == []


def test_the_file_may_grow_after_it_was_read() -> None:
    shelf = ImageCache(memory=0)
    shelf.put(0, ARRAYS[0])
    first = shelf.get(0)
    filled(shelf)
    assert held(shelf) == list(range(8))
    assert first is not None and np.array_equal(first, ARRAYS[0])


def test_a_full_disk_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    real: Any = shelf_module.tempfile.TemporaryFile

    class Full:
        """A real file on a disk that is full after two arrays: a full disk itself cannot be had."""

        def __init__(self, dir: Path) -> None:
            self._file, self._writes = real(dir=dir), 0

        def write(self, content: bytes) -> int:
            self._writes += 1
            if self._writes > 2:
                raise OSError(errno.ENOSPC, "No space left on device")
            return int(self._file.write(content))

        def __getattr__(self, name: str) -> Any:
            return getattr(self._file, name)

    monkeypatch.setattr(shelf_module, "tempfile", SimpleNamespace(TemporaryFile=Full))
    assert held(filled(ImageCache(memory=0))) == [0, 1]


def test_where_files_cannot_be_mapped_nothing_is_held_there(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENODEV, "no such device")

    monkeypatch.setattr(shelf_module.mmap, "mmap", refused)
    assert held(filled(ImageCache(memory=LENGTHS[0]))) == [0]
