"""Kept features on disk, found by what made them.

A **column** holds one boundary tensor of one view for any number of images; its key says what made
it. A column is a folder of **shards**, safetensors files that each describe themselves: `images`, uint8
``(n, 32)``, the sha256 of each image's bytes, and `features`, ``(n, k, …)``, k rows per image.

Shards are written under a temporary name and renamed, so a process that is killed leaves whole shards
or none, and several processes may write at once. A shard that cannot be read is ignored and made again.
"""

from __future__ import annotations

import os
import shutil
import time
import uuid
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from tlkit.errors import StoreError
from tlkit.folders import cache_folder

FORMAT = "1"
#: A shard is closed when it is this large or this old, so little is lost when a process is killed.
SHARD_BYTES = 64 * 2**20
SHARD_SECONDS = 5.0


def cache_limit(given: str | None = None) -> int:
    """How many bytes may be kept: `given`, else ``TLKIT_CACHE_LIMIT``, such as ``500MB``; else 20 GB.

    Raises:
        StoreError: that is no size.
    """
    given = given or os.environ.get("TLKIT_CACHE_LIMIT") or "20GB"
    text = given.strip().upper().removesuffix("B")
    scale = {"K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}.get(text[-1:], 1)
    try:
        limit = int(float(text.rstrip("KMGT")) * scale)
    except ValueError:
        limit = -1
    if limit < 0:
        raise StoreError(f"{given!r} is no size such as 20GB (the cache's limit, TLKIT_CACHE_LIMIT)")
    return limit


@dataclass(frozen=True, slots=True)
class ColumnInfo:
    """What `FeatureStore.columns` lists: a column's key, size in bytes, and last use in epoch seconds."""

    key: str
    bytes: int
    used: float


class FeatureStore:
    """All columns below one folder.

    Attributes:
        folder: where they are.
        used: keys of the columns that were asked for.
    """

    def __init__(self, folder: Path | None = None) -> None:
        """Opens the store in `folder`, the cache folder unless given; nothing is written yet."""
        self.folder = (folder or cache_folder()) / "features"
        self.used: set[str] = set()

    def column(self, key: str) -> Column:
        """The column of that key, as it is on disk now, be it empty; counts as a use."""
        self.used.add(key)
        return Column(self.folder / key[:2] / key, key)

    def columns(self) -> list[ColumnInfo]:
        """All columns, longest unused first."""
        found = []
        for folder in self._folders():
            with suppress(FileNotFoundError):  # another run is making room
                files = [entry.stat() for entry in os.scandir(folder) if entry.is_file()]
                size = sum(file.st_size for file in files)
                found.append(ColumnInfo(folder.name, size, folder.stat().st_mtime))
        return sorted(found, key=lambda info: (info.used, info.key))

    def prune(self, limit: int, keep: Collection[str] = ()) -> int:
        """Removes the longest unused columns until `limit` bytes are left; never those in `keep`.

        Returns:
            How many bytes were freed.
        """
        columns = self.columns()
        total, freed = sum(info.bytes for info in columns), 0
        for info in columns:
            if total - freed <= limit:
                break
            if info.key not in keep:
                shutil.rmtree(self.folder / info.key[:2] / info.key, ignore_errors=True)
                freed += info.bytes
        return freed

    def _folders(self) -> Iterator[Path]:
        if self.folder.is_dir():
            for group in sorted(self.folder.iterdir()):
                yield from (path for path in sorted(group.iterdir()) if path.is_dir())


class Column:
    """One boundary tensor of one view, for the images that have it."""

    def __init__(self, folder: Path, key: str) -> None:
        self.folder = folder
        self.key = key
        self._features: list[Tensor] = []
        images: list[NDArray[Any]] = []
        if folder.is_dir():
            for path in sorted(folder.glob("*.safetensors")):
                shard = _open(path, key)
                if shard is not None:
                    images.append(shard[0])
                    self._features.append(shard[1])
            with suppress(FileNotFoundError):  # another run is making room
                os.utime(folder)
        self._shard = np.repeat(np.arange(len(images)), [len(part) for part in images])
        self._row = np.concatenate([np.arange(len(part)) for part in images] or [np.empty(0, np.int64)])
        ids = np.concatenate(images or [np.empty((0, 32), np.uint8)])
        self._ids = np.ascontiguousarray(ids).view("V32").ravel()

    @cached_property
    def _order(self) -> NDArray[np.int64]:
        return np.argsort(self._ids, kind="stable")

    def _find(self, images: Sequence[str]) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
        """Which of the images are there, and each one's place."""
        wanted = np.frombuffer(bytes.fromhex("".join(images)), "V32")
        if not len(self._ids):
            return np.zeros(len(wanted), bool), np.zeros(len(wanted), np.int64)
        ordered = self._ids[self._order]
        place = np.minimum(np.searchsorted(ordered, wanted), len(ordered) - 1)
        return ordered[place] == wanted, self._order[place]

    def missing(self, images: Sequence[str]) -> list[str]:
        """Those of the images, by sha256, that the column lacks."""
        there, _ = self._find(images)
        return [image for image, found in zip(images, there, strict=True) if not found]

    def rows(self, images: Sequence[str]) -> Rows:
        """The features of these images, in this order.

        Raises:
            StoreError: one is missing.
        """
        there, place = self._find(images)
        if not there.all():
            raise StoreError(f"{self.folder}: {int((~there).sum())} images have no kept features")
        return Rows(self._features, self._shard[place], self._row[place])


class Rows:
    """Features of a sequence of images, read from memory-mapped shards as they are asked for."""

    def __init__(self, shards: Sequence[Tensor], shard: NDArray[np.int64], row: NDArray[np.int64]) -> None:
        self._shards = shards
        self._shard = shard
        self._row = row

    @staticmethod
    def joined(parts: Sequence[Rows]) -> Rows:
        """The rows of all parts, one part after the other."""
        starts = np.cumsum([0, *(len(part._shards) for part in parts[:-1])])
        return Rows(
            [shard for part in parts for shard in part._shards],
            np.concatenate([part._shard + start for part, start in zip(parts, starts, strict=True)]),
            np.concatenate([part._row for part in parts]),
        )

    def __len__(self) -> int:
        return len(self._row)

    @property
    def bytes(self) -> int:
        """What all of them take in memory."""
        if not len(self):
            return 0
        first = self._shards[int(self._shard[0])]
        return len(self) * first[0].numel() * first.element_size()

    def take(self, places: NDArray[np.int64]) -> Tensor:
        """The features at these places, ``(n, k, …)``."""
        shard, row = self._shard[places], self._row[places]
        example = self._shards[int(shard[0])]
        result = torch.empty((len(places), *example.shape[1:]), dtype=example.dtype)
        for number in np.unique(shard):
            here = np.flatnonzero(shard == number)
            result[torch.from_numpy(here)] = self._shards[number][torch.from_numpy(row[here])]
        return result

    def together(self, device: torch.device, *, channels_last: bool) -> Tensor:
        """All of them ``(N, k, …)`` on `device`, brought there a part at a time.

        With `channels_last` maps ``(N, k, C, H, W)`` lie in memory that way, and so do batches taken of them.
        """
        example = self._shards[int(self._shard[0])]
        shape = len(self), *example.shape[1:]
        if channels_last and len(shape) == 5:
            channels_behind = *shape[:2], *shape[3:], shape[2]
            result = torch.empty(channels_behind, dtype=example.dtype, device=device).movedim(-1, 2)
        else:
            result = torch.empty(shape, dtype=example.dtype, device=device)
        count = max(1, SHARD_BYTES * len(self) // max(1, self.bytes))
        for start in range(0, len(self), count):
            places = np.arange(start, min(start + count, len(self)))
            result[start : start + len(places)] = self.take(places)
        return result


class Writer:
    """Appends features to a column, a shard at a time."""

    def __init__(self, column: Column, sharing: int = 1) -> None:
        """With several columns that are written beside each other, `sharing` of them, shards are smaller."""
        self._limits = SHARD_BYTES // sharing, SHARD_SECONDS * sharing
        self._folder = column.folder
        self._key = column.key
        self._images: list[str] = []
        self._parts: list[Tensor] = []
        self._bytes = 0
        self._since = time.monotonic()

    def add(self, images: Sequence[str], features: Tensor) -> None:
        """Takes ``(n, k, …)`` features on the CPU for n images; may write a shard.

        Raises:
            StoreError: the disk is full or the folder cannot be written.
        """
        self._images += images
        self._parts.append(features)
        self._bytes += features.numel() * features.element_size()
        size, seconds = self._limits
        if self._bytes >= size or time.monotonic() - self._since >= seconds:
            self.flush()

    def flush(self) -> None:
        """Writes what has been taken as a shard of its own.

        Raises:
            StoreError: as in `add`.
        """
        self._since = time.monotonic()
        if not self._parts:
            return
        name = uuid.uuid4().hex
        unfinished = self._folder / f"{name}.unfinished"
        ids = np.frombuffer(bytes.fromhex("".join(self._images)), np.uint8).reshape(-1, 32)
        tensors = {"images": torch.from_numpy(ids.copy()), "features": torch.cat(self._parts)}
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            save_file(tensors, unfinished, metadata={"format": FORMAT, "column": self._key})
            unfinished.rename(self._folder / f"{name}.safetensors")
        except (OSError, SafetensorError) as error:
            with suppress(OSError):
                unfinished.unlink()
            raise StoreError(
                f"features cannot be written to {self._folder}: {error}. Free some space there "
                "(tlkit cache clear), name another folder in TLKIT_CACHE, or train without kept features "
                "(--set features.keep=false)"
            ) from error
        self._images, self._parts, self._bytes = [], [], 0


def _open(path: Path, key: str) -> tuple[NDArray[np.uint8], Tensor] | None:
    """A shard's images and its memory-mapped features; None if it is not a whole shard of the column."""
    try:
        with safe_open(path, "pt") as shard:
            about = shard.metadata() or {}
            images, features = shard.get_tensor("images"), shard.get_tensor("features")
    except (OSError, SafetensorError):
        return None
    if about.get("format") != FORMAT or about.get("column") != key or len(images) != len(features):
        return None
    return images.numpy(), features
