"""The feature store: cached features on disk, found by what computed them.

A **column** holds one boundary tensor of one view for any number of images; its key describes what
computed it. A column is a folder of **shards**, files that each describe themselves; see `shards`.

What the store promises: a feature that is read is, bit for bit, the one that was computed for that key and
image. Shards are written under a temporary name and renamed, so a process that is killed leaves whole shards
or none. One that is damaged is not used, and its features are computed again. Several processes may share the
store: they do not compute a column twice, and remove none that another one uses; see `leases`.
"""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tlkit.errors import StoreError
from tlkit.feature_store.leases import Lease, computing, leased, removal
from tlkit.feature_store.shards import UNSENT, Shard, open_shard, unsent, write_shard
from tlkit.utils.atomic_write import DAY, remove_unfinished
from tlkit.utils.directories import cache_folder, is_own, own_folder, shared_store

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from tlkit.feature_store.remote import RemoteStore

#: Shards that were verified, by their path, size and time of change.
Verified = dict[tuple[Path, int, int], Shard]
#: Names of the folders of columns, and of groups of them.
KEY, GROUP = re.compile("[0-9a-f]{40}"), re.compile("[0-9a-f]{2}")
#: A shard is closed when it is this large or this old, so little is lost when a process is killed.
SHARD_BYTES = 64 * 2**20
SHARD_SECONDS = 5.0


def cache_limit(limit: str | None = None) -> int:
    """Returns the limit in bytes: `limit`, such as ``500MB``, else ``TLKIT_CACHE_LIMIT``, else 20 GB.

    Raises:
        StoreError: it is not a size.
    """
    limit = limit or os.environ.get("TLKIT_CACHE_LIMIT") or "20GB"
    text = limit.strip().upper().removesuffix("B")
    scale = {"K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}.get(text[-1:], 1)
    try:
        count = int(float(text.rstrip("KMGT")) * scale)
    except (ValueError, OverflowError):
        count = -1
    if count < 0:
        raise StoreError(f"{limit!r} is not a size such as 20GB (the cache's limit, TLKIT_CACHE_LIMIT)")
    return count


def _connect(address: str) -> RemoteStore:
    # fsspec's clients take long to import
    from tlkit.feature_store.remote import RemoteStore

    return RemoteStore(address)


@dataclass(frozen=True, slots=True)
class ColumnInfo:
    """An entry of `FeatureStore.columns`: a column's key, size in bytes, and last use in epoch seconds."""

    key: str
    size: int
    used: float


class FeatureStore:
    """All columns below one folder.

    Columns that were opened are kept from being removed, until `close`.

    Attributes:
        folder: the store's folder.
        remote: the store whose copies it has, where several machines share one; see `remote`.
    """

    def __init__(self, folder: Path | None = None) -> None:
        """Opens the store in `folder`, by default the cache folder; nothing is written yet.

        Raises:
            StoreError: ``TLKIT_CACHE`` is an address that cannot be used.
        """
        self.folder = (folder or cache_folder()) / "features"
        address = shared_store() if folder is None else None
        self.remote = _connect(address) if address is not None else None
        self._leases = self.folder / "leases"
        self._lease = Lease(self._leases)
        self._verified: Verified = {}

    def close(self) -> None:
        """Lets other processes remove the columns that were opened."""
        self._lease.release()

    def __enter__(self) -> FeatureStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def lease_file(self) -> Path:
        """The file that names the columns that are open: who sees it, shares this store."""
        return self._lease.file

    def column(self, key: str) -> Column:
        """Opens the column of that key as it is on disk now, which may be empty; counts as a use.

        Raises:
            StoreError: the shared store cannot be reached.
        """
        own_folder(self.folder)
        self._lease.add(key)
        folder = self.folder / key[:2] / key
        if self.remote is not None:
            self.remote.sync(key, folder)
        return Column(folder, key, self._verified)

    def writer(self, key: str, sharing: int = 1) -> Writer:
        """Returns what appends to the column of that key, without opening it.

        Args:
            key: the column's key.
            sharing: how many columns are written at the same time; shards are that much smaller.
        """
        own_folder(self.folder)
        self._lease.add(key)
        return Writer(self.folder / key[:2] / key, key, self.remote, sharing)

    @contextmanager
    def computing(self, names: Collection[str], wait: Callable[[], object]) -> Iterator[None]:
        """Computes columns, or parts of them, alone: other processes wait; see `leases.computing`.

        Args:
            names: keys of columns, which a part's name may follow.
            wait: called once if another process computes one of them.

        Raises:
            StoreError: the store cannot be written.
        """
        try:
            with computing(self._leases, names, wait):
                yield
        except OSError as error:
            raise StoreError(
                f"features cannot be written to {self.folder}: {error.strerror or error}. Name another "
                "folder in TLKIT_CACHE, or train without cached features (--set features.cache=false)"
            ) from error

    def columns(self) -> list[ColumnInfo]:
        """Lists all columns, longest unused first."""
        columns = []
        for folder in self._folders():
            with suppress(FileNotFoundError):  # another run is pruning
                files = [entry.stat() for entry in os.scandir(folder) if entry.is_file()]
                size = sum(file.st_size for file in files)
                columns.append(ColumnInfo(folder.name, size, folder.stat().st_mtime))
        return sorted(columns, key=lambda info: (info.used, info.key))

    def prune(self, limit: int) -> int:
        """Removes the longest unused columns until at most `limit` bytes are left.

        None is removed that a process uses, or of which a shared store lacks something.

        Returns:
            The number of bytes freed.

        Raises:
            StoreError: the store cannot be written.
        """
        if not self.folder.is_dir() or not is_own(self.folder):
            return 0
        freed = 0
        try:
            self._leases.mkdir(exist_ok=True)
            with removal(self._leases):
                remove_unfinished(self.folder, older_than=DAY)
                columns, keep = self.columns(), leased(self._leases)
                total = sum(info.size for info in columns)
                for info in columns:
                    folder = self.folder / info.key[:2] / info.key
                    if total - freed > limit and info.key not in keep and not unsent(folder):
                        shutil.rmtree(folder, ignore_errors=True)
                        for lock in self._leases.glob(f"{info.key}*.computing"):
                            lock.unlink(missing_ok=True)
                        freed += info.size
        except OSError as error:
            raise StoreError(f"{self.folder} cannot be written: {error.strerror or error}") from error
        return freed

    def _folders(self) -> Iterator[Path]:
        """Yields the columns' folders; whatever else lies there is not the store's."""
        if not self.folder.is_dir():
            return
        for group in sorted(path for path in self.folder.iterdir() if GROUP.fullmatch(path.name)):
            if group.is_dir():
                yield from (path for path in sorted(group.iterdir()) if KEY.fullmatch(path.name))


class Column:
    """One boundary tensor of one view, for the images that have it."""

    def __init__(self, folder: Path, key: str, verified: Verified) -> None:
        """Opens a column's shards; those that are in `verified` are not read again."""
        self.folder = folder
        self.key = key
        self._features: list[Tensor] = []
        images: list[NDArray[Any]] = []
        if folder.is_dir():
            for path in sorted(folder.glob("*.safetensors")):
                with suppress(FileNotFoundError):  # removed by hand
                    status = path.stat()
                    identity = path, status.st_size, status.st_mtime_ns
                    shard = verified.get(identity) or open_shard(path, key)
                    if shard is None or (self._features and not shard.fits(self._features[0])):
                        continue
                    verified[identity] = shard
                    images.append(shard.images)
                    self._features.append(shard.features)
            with suppress(OSError):  # somebody else's store, or on a read-only disk
                os.utime(folder)
        self._shard = np.repeat(np.arange(len(images)), [len(part) for part in images])
        self._row = np.concatenate([np.arange(len(part)) for part in images] or [np.empty(0, np.int64)])
        ids = np.concatenate(images or [np.empty((0, 32), np.uint8)])
        self._ids = np.ascontiguousarray(ids).view("V32").ravel()

    @cached_property
    def _order(self) -> NDArray[np.int64]:
        return np.argsort(self._ids, kind="stable")

    def _find(self, images: Sequence[str]) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
        """Returns which of the images are present, and the index of each."""
        ids = np.frombuffer(bytes.fromhex("".join(images)), "V32")
        if not len(self._ids):
            return np.zeros(len(ids), bool), np.zeros(len(ids), np.int64)
        ordered = self._ids[self._order]
        position = np.minimum(np.searchsorted(ordered, ids), len(ordered) - 1)
        return ordered[position] == ids, self._order[position]

    def missing(self, images: Sequence[str]) -> list[str]:
        """Returns those of the images, by sha256, that the column lacks."""
        present, _ = self._find(images)
        return [image for image, is_present in zip(images, present, strict=True) if not is_present]

    def rows(self, images: Sequence[str]) -> Rows:
        """Returns the features of these images, in this order.

        Raises:
            StoreError: one is missing.
        """
        present, index = self._find(images)
        if not present.all():
            raise StoreError(f"{self.folder}: {int((~present).sum())} images have no cached features")
        return Rows(self._features, self._shard[index], self._row[index])


class Rows:
    """Features of a sequence of images, read from memory-mapped shards on demand."""

    def __init__(self, shards: Sequence[Tensor], shard: NDArray[np.int64], row: NDArray[np.int64]) -> None:
        self._shards = shards
        self._shard = shard
        self._row = row

    @staticmethod
    def joined(parts: Sequence[Rows]) -> Rows:
        """Concatenates the rows of all parts."""
        starts = np.cumsum([0, *(len(part._shards) for part in parts[:-1])])
        return Rows(
            [shard for part in parts for shard in part._shards],
            np.concatenate([part._shard + start for part, start in zip(parts, starts, strict=True)]),
            np.concatenate([part._row for part in parts]),
        )

    def __len__(self) -> int:
        return len(self._row)

    @property
    def size(self) -> int:
        """The size of all of them in memory, in bytes."""
        if not len(self):
            return 0
        first = self._shards[int(self._shard[0])]
        return len(self) * first[0].numel() * first.element_size()

    def take(self, indices: NDArray[np.int64]) -> Tensor:
        """Returns the features at these indices, ``(n, k, …)``."""
        import torch

        shard, row = self._shard[indices], self._row[indices]
        example = self._shards[int(shard[0])]
        result = torch.empty((len(indices), *example.shape[1:]), dtype=example.dtype)
        for number in np.unique(shard):
            positions = np.flatnonzero(shard == number)
            result[torch.from_numpy(positions)] = self._shards[number][torch.from_numpy(row[positions])]
        return result

    def load(self, device: torch.device, *, channels_last: bool) -> Tensor:
        """Copies all of them ``(N, k, …)`` to `device`, a part at a time.

        With `channels_last`, maps ``(N, k, C, H, W)`` have that layout in memory, and so do their batches.
        """
        import torch

        example = self._shards[int(self._shard[0])]
        shape = len(self), *example.shape[1:]
        if channels_last and len(shape) == 5:
            permuted = *shape[:2], *shape[3:], shape[2]
            result = torch.empty(permuted, dtype=example.dtype, device=device).movedim(-1, 2)
        else:
            result = torch.empty(shape, dtype=example.dtype, device=device)
        count = max(1, SHARD_BYTES * len(self) // max(1, self.size))
        for start in range(0, len(self), count):
            indices = np.arange(start, min(start + count, len(self)))
            result[start : start + len(indices)] = self.take(indices)
        return result


class Writer:
    """Appends features to a column, a shard at a time."""

    def __init__(self, folder: Path, key: str, remote: RemoteStore | None, sharing: int) -> None:
        """Prepares to write to a column; see `FeatureStore.writer`."""
        self._limits = SHARD_BYTES // sharing, SHARD_SECONDS * sharing
        self._folder = folder
        self._key = key
        self._remote = remote
        self._images: list[str] = []
        self._parts: list[Tensor] = []
        self._bytes = 0
        self._since = time.monotonic()

    def add(self, images: Sequence[str], features: Tensor) -> None:
        """Appends ``(n, k, …)`` features on the CPU of n images; may write a shard.

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
        """Writes what was appended as a shard.

        Raises:
            StoreError: as in `add`.
        """
        import torch

        self._since = time.monotonic()
        if not self._parts:
            return
        ids = np.frombuffer(bytes.fromhex("".join(self._images)), np.uint8).reshape(-1, 32)
        folder = self._folder if self._remote is None else self._folder / UNSENT
        shard = write_shard(folder, self._key, ids.copy(), torch.cat(self._parts))
        if self._remote is not None:
            self._remote.send(self._key, shard)
        self._images, self._parts, self._bytes = [], [], 0
