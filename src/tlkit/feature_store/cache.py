"""What tlkit stores on a machine between runs: lists it, and removes it."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from tlkit.feature_store.store import ColumnInfo, FeatureStore, cache_limit
from tlkit.utils.directories import (
    TAG,
    cache_folder,
    download_folder,
    generated_folder,
    index_folder,
    is_own,
    shared_store,
)

#: What is stored beside features, and the functions that return its folder.
OTHER_FOLDERS = {
    "generated images": generated_folder,
    "unfinished downloads": download_folder,
    "hashes of images": index_folder,
}


@dataclass(frozen=True)
class StoredFolder:
    """A folder or file of the cache, besides the features.

    Attributes:
        content: what is in it.
        folder: its path.
        size: in bytes.
    """

    content: str
    folder: Path
    size: int


@dataclass(frozen=True)
class CacheContents:
    """What the cache holds.

    Attributes:
        folder: the folder of the cached features.
        shared: the address of the store that they are copies of, if several machines share one.
        columns: the cached features, longest unused first.
        limit: how many bytes of them are kept.
        others: what is stored besides.
    """

    folder: Path
    shared: str | None
    columns: tuple[ColumnInfo, ...]
    limit: int
    others: tuple[StoredFolder, ...]

    @property
    def size(self) -> int:
        """The size of the cached features, in bytes."""
        return sum(column.size for column in self.columns)


@dataclass(frozen=True)
class ClearedCache:
    """What became of the cache.

    Attributes:
        freed: how many bytes were removed.
        left: what was not, each with the reason.
    """

    freed: int
    left: tuple[str, ...]


def list_cache() -> CacheContents:
    """Lists the cached features, and what else is stored between runs."""
    store = FeatureStore()
    folders = [(content, folder()) for content, folder in OTHER_FOLDERS.items()]
    folders += [(f"{path.name}, which a plugin stores", path) for path in _of_plugins(store.folder)]
    stored = (StoredFolder(content, folder, _size(folder)) for content, folder in folders)
    others = tuple(folder for folder in stored if folder.size)
    return CacheContents(store.folder, shared_store(), tuple(store.columns()), cache_limit(), others)


def prune_cache(limit: str | None = None) -> int:
    """Removes the longest unused features until the rest is within the limit; none that a run uses.

    Args:
        limit: such as "5GB"; ``TLKIT_CACHE_LIMIT``, or 20 GB, unless given.

    Returns:
        The number of bytes freed.

    Raises:
        StoreError: the limit is not a size, or the cache cannot be written.
    """
    return FeatureStore().prune(cache_limit(limit))


def clear_cache() -> ClearedCache:
    """Removes everything; features and images are made again when they are needed.

    Raises:
        StoreError: the cache cannot be written.
    """
    store = FeatureStore()
    freed = store.prune(0)
    left = [f"{store.folder}: used by a run, or not made by tlkit"] if store.columns() else []
    for folder in (folder() for folder in OTHER_FOLDERS.values()):
        if is_own(folder):
            freed += _size(folder)
            shutil.rmtree(folder, ignore_errors=True)
        elif folder.exists():
            left.append(f"{folder}: not made by tlkit")
    if (shared := shared_store()) is not None:
        left.append(f"{shared}: other machines use it")
    left += [f"{path}: a plugin's" for path in _of_plugins(store.folder)]
    return ClearedCache(freed, tuple(left))


def _of_plugins(features: Path) -> list[Path]:
    """Returns what is directly in the cache folder and not tlkit's own: plugins may store files there."""
    own = {features, *(folder() for folder in OTHER_FOLDERS.values())}
    folder = cache_folder()
    return sorted(path for path in folder.iterdir() if path not in own) if folder.is_dir() else []


def _size(folder: Path) -> int:
    """Returns the size of a file, or of a folder's files without the mark that it is tlkit's, in bytes."""
    files = (path for path in (folder, *folder.rglob("*")) if path.name != TAG and path.is_file())
    return sum(path.stat().st_size for path in files)
