"""A feature store in an object store, such as S3, that several machines share.

Shards are immutable, verify themselves and have names that nobody else takes, so that what an object store
offers suffices: there are no locks, and nothing is renamed. Each machine works on copies in its own cache
folder.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from fsspec import AbstractFileSystem
from fsspec.core import url_to_fs

from tlkit.errors import StoreError
from tlkit.utils.atomic_write import UNFINISHED

SHARD = re.compile(r"[0-9a-f]{32}\.safetensors")
#: Shards that are copied at once: some stores' clients are faster with several.
AT_ONCE = 16


class RemoteStore:
    """The columns below an address, such as ``s3://bucket/folder``."""

    def __init__(self, address: str) -> None:
        """Prepares the connection; the address is that of the store, features are in ``features`` there.

        Raises:
            StoreError: the address is not one, or what reads such addresses is not installed.
        """
        self.address = address.rstrip("/")
        self._files, self._folder = _connect(f"{self.address}/features")

    def sync(self, key: str, folder: Path) -> None:
        """Makes a column in a folder on this disk and the shared one equal: copies what each of them lacks.

        A killed process leaves shards on this disk that it has not copied; they are copied then.

        Raises:
            StoreError: the store cannot be reached, or this disk is full.
        """
        with self._errors():
            shared = {name for name in self._names(key) if SHARD.fullmatch(name)}
            here = {path.name for path in folder.glob("*.safetensors")} if folder.is_dir() else set()
            missing = sorted(shared - here)
            for start in range(0, len(missing), AT_ONCE):
                self._download(key, folder, missing[start : start + AT_ONCE])
            for name in sorted(here - shared):
                self._upload(key, folder / name)

    def upload(self, key: str, shard: Path) -> None:
        """Copies a shard to its column.

        Raises:
            StoreError: the store cannot be reached, or takes nothing.
        """
        with self._errors():
            self._upload(key, shard)

    def _column(self, key: str) -> str:
        return f"{self._folder}/{key[:2]}/{key}"

    def _names(self, key: str) -> list[str]:
        try:
            return [entry.rsplit("/", 1)[-1] for entry in self._files.ls(self._column(key), detail=False)]
        except FileNotFoundError:
            return []

    def _download(self, key: str, folder: Path, names: Sequence[str]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, suffix=UNFINISHED) as temporary:
            copies = [Path(temporary, name) for name in names]
            self._files.get([f"{self._column(key)}/{name}" for name in names], [str(path) for path in copies])
            for path in copies:
                path.replace(folder / path.name)

    def _upload(self, key: str, shard: Path) -> None:
        self._files.put_file(str(shard), f"{self._column(key)}/{shard.name}")

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


def _connect(address: str) -> tuple[AbstractFileSystem, str]:
    """Returns the file system of an address, and the path in it."""
    try:
        # other machines add shards, so what is listed once must not be remembered
        files, folder = url_to_fs(address, use_listings_cache=False)
    except ImportError as error:
        hint = ": pip install 'tlkit[s3]'" if address.startswith("s3") else ""
        raise StoreError(f"{address} (TLKIT_CACHE) cannot be used: {error}{hint}") from error
    except ValueError as error:
        raise StoreError(f"{address} (TLKIT_CACHE) is no address of a store: {error}") from error
    return files, str(folder)
