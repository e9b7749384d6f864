"""A feature store in an object store, such as S3, that several machines share.

Shards are immutable, verify themselves and have names that nobody else takes, so that what an object store
offers suffices: there are no locks, and nothing is renamed. Each machine works on copies in its own cache
folder.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from fsspec import AbstractFileSystem
from fsspec.core import url_to_fs

from tlkit.errors import StoreError
from tlkit.feature_store.shards import open_shard, unsent
from tlkit.utils.atomic_write import UNFINISHED

#: How addresses begin: of S3, Google Cloud Storage and Azure.
OBJECT_STORES = ("s3", "gs", "abfs")
#: Names of shards, and the size in bytes up to which they are copied: tlkit's own are far smaller.
SHARD, LARGEST = re.compile(r"[0-9a-f]{32}\.safetensors"), 2**30
#: Shards that are copied at once: some stores' clients are faster with several.
AT_ONCE = 16


class RemoteStore:
    """The columns below an address, such as ``s3://bucket/folder``."""

    def __init__(self, address: str) -> None:
        """Prepares the connection; the address is that of the store, features are in ``features`` there.

        Raises:
            StoreError: the address is not one, or what reads such addresses is not installed.
        """
        self.address = address
        self._files, self._folder = _connect(address)

    def sync(self, key: str, folder: Path) -> None:
        """Copies what a folder on this disk lacks of a column, and sends what could not be sent before.

        Raises:
            StoreError: the store cannot be reached, or this disk is full.
        """
        for shard in unsent(folder):
            if open_shard(shard, key) is None:  # damaged when this machine lost its power
                shard.unlink(missing_ok=True)
            else:
                self.send(key, shard)
        with self._errors():
            sizes = self._sizes(key)
            missing = [name for name, size in sizes.items() if _size(folder / name) != size]
            for start in range(0, len(missing), AT_ONCE):
                self._download(key, folder, missing[start : start + AT_ONCE])

    def send(self, key: str, shard: Path) -> None:
        """Copies an unsent shard to its column, and moves it to its folder.

        Raises:
            StoreError: the store cannot be reached, or takes nothing.
        """
        try:
            with self._errors():
                self._files.put_file(str(shard), f"{self._column(key)}/{shard.name}")
            shard.replace(shard.parents[1] / shard.name)
        except (StoreError, FileNotFoundError):
            if shard.exists():
                raise
            # another process has sent it meanwhile

    def _column(self, key: str) -> str:
        return f"{self._folder}/{key[:2]}/{key}"

    def _sizes(self, key: str) -> dict[str, int]:
        """Returns the size of each of a column's shards in bytes, by name."""
        try:
            entries = self._files.ls(self._column(key), detail=True)
        except FileNotFoundError:
            return {}
        sizes = {entry["name"].rsplit("/", 1)[-1]: int(entry["size"] or 0) for entry in entries}
        return {
            name: size for name, size in sorted(sizes.items()) if SHARD.fullmatch(name) and size <= LARGEST
        }

    def _download(self, key: str, folder: Path, names: Sequence[str]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, suffix=UNFINISHED) as temporary:
            copies = [Path(temporary, name) for name in names]
            self._files.get([f"{self._column(key)}/{name}" for name in names], [str(path) for path in copies])
            for path in copies:
                with suppress(PermissionError):  # on Windows, another process has it open, and so copied it
                    path.replace(folder / path.name)

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        # each kind of store has errors of its own
        except Exception as error:
            raise StoreError(
                f"{self.address} (TLKIT_CACHE) cannot be used: {error}. What was computed is kept on this "
                "disk, and is copied there when a run next uses it"
            ) from error


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return None


def _connect(address: str) -> tuple[AbstractFileSystem, str]:
    """Returns the file system of an address, and the path in it."""
    scheme, _, bucket_path = address.partition("://")
    if scheme.lower() not in OBJECT_STORES or not bucket_path.strip("/"):
        examples = ", ".join(f"{name}://bucket" for name in OBJECT_STORES)
        raise StoreError(
            f"TLKIT_CACHE: {address!r} is not an object store: name a folder, or a store as {examples}"
        )
    try:
        # other machines add shards, so what is listed once must not be remembered
        files, folder = url_to_fs(f"{scheme.lower()}://{bucket_path.strip('/')}", use_listings_cache=False)
    except Exception as error:  # each kind of store has errors of its own
        lacks_client = isinstance(error, ImportError) and scheme.lower() == "s3"
        hint = ": pip install 'tlkit[s3]'" if lacks_client else ""
        raise StoreError(f"{address} (TLKIT_CACHE) cannot be used: {error}{hint}") from error
    return files, f"{folder}/features"
