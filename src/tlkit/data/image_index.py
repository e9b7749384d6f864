"""Remembers the hashes of image files, so that files that have not changed are not read again.

A file is unchanged while its size, its times of modification and of change and its inode are those that it
had when it was read. A file that was changed shortly before it was read is not remembered: it could change
once more within the same tick of the file system's clock, with the same times (git calls this "racy").
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import NamedTuple

from tlkit.utils.directories import index_folder
from tlkit.utils.hashing import digest

#: Files that were changed less than this before they were read are not remembered. The clocks of file systems
#: tick every few milliseconds, that of FAT every two seconds, and a file server's clock may be behind.
RACY_NS = 10 * 10**9
#: Seconds to wait for another process that writes to the index.
TIMEOUT = 5.0
#: How many files one query asks for.
QUERY = 1000
TABLE = """CREATE TABLE IF NOT EXISTS images (
    path BLOB PRIMARY KEY, size INTEGER, mtime INTEGER, ctime INTEGER, inode INTEGER,
    sha256 BLOB, width INTEGER, height INTEGER
) WITHOUT ROWID"""


class FileIdentity(NamedTuple):
    """What tells whether a file has changed since: size in bytes, times in nanoseconds, and inode."""

    size: int
    mtime: int
    ctime: int
    inode: int

    @staticmethod
    def of(path: Path) -> FileIdentity | None:
        """Returns a file's identity; None if there is no such file."""
        try:
            status = os.stat(path)  # noqa: PTH116  a million times
        except (OSError, ValueError):
            return None
        # SQLite's integers are signed
        inode = status.st_ino & (2**63 - 1)
        return FileIdentity(status.st_size, status.st_mtime_ns, status.st_ctime_ns, inode)

    def is_settled(self, now: int) -> bool:
        """Returns whether the last change is old enough at `now` that a later one would have other times."""
        return max(self.mtime, self.ctime) + RACY_NS <= now


class IndexedImage(NamedTuple):
    """An image file that was read: its hash in hexadecimal, and its size in pixels."""

    sha256: str
    width: int
    height: int


class ImageIndex:
    """An SQLite file in the cache folder; several processes may use it at once.

    Where it cannot be read or written, nothing is remembered.
    """

    def __init__(self, version: str) -> None:
        """Opens the index.

        Args:
            version: what else it depends on whether a file can be decoded, such as the decoder's version.
        """
        self._path = index_folder() / f"{digest(version)}.sqlite"
        self._usable = True

    def find(self, files: Sequence[tuple[Path, FileIdentity | None]]) -> list[IndexedImage | None]:
        """Returns what is known of each file; None of those that are new or have changed."""
        names = [os.fsencode(path) for path, _ in files]
        entries: dict[bytes, tuple[FileIdentity, IndexedImage]] = {}

        def query(database: sqlite3.Connection) -> None:
            for start in range(0, len(names), QUERY):
                part = names[start : start + QUERY]
                marks = ",".join("?" * len(part))
                for row in database.execute(f"SELECT * FROM images WHERE path IN ({marks})", part):
                    name, *identity, sha256, width, height = row
                    entries[name] = FileIdentity(*identity), IndexedImage(sha256.hex(), width, height)

        self._do(query)
        return [
            entries[name][1] if name in entries and entries[name][0] == identity else None
            for name, (_, identity) in zip(names, files, strict=True)
        ]

    def add(self, files: Iterable[tuple[Path, FileIdentity | None, IndexedImage]], began: int) -> None:
        """Remembers files.

        Args:
            files: each with the identity that it had before it was read.
            began: when reading them began, in nanoseconds since the epoch.
        """
        rows = [
            (os.fsencode(path), *identity, bytes.fromhex(image.sha256), image.width, image.height)
            for path, identity, image in files
            if identity is not None and identity.is_settled(began)
        ]
        marks = ",".join("?" * (1 + len(FileIdentity._fields) + len(IndexedImage._fields)))
        if rows:
            self._do(lambda database: database.executemany(f"REPLACE INTO images VALUES ({marks})", rows))

    def _do(self, action: Callable[[sqlite3.Connection], object]) -> None:
        """Lets an action use the database; where it cannot be used, it is not tried again."""
        if not self._usable:
            return
        if not self._path.exists():
            with suppress(OSError):  # the error of SQLite counts
                self._path.touch()  # as the umask says; SQLite lets nobody else write to what it makes
        try:
            with closing(sqlite3.connect(self._path, timeout=TIMEOUT)) as database, database:
                database.execute(TABLE)
                action(database)
        except (sqlite3.OperationalError, OverflowError):  # no space, read-only, locked; times out of range
            self._usable = False
        except sqlite3.DatabaseError:  # damaged: it is made again
            for path in (self._path, self._path.with_name(f"{self._path.name}-journal")):
                with suppress(OSError):
                    path.unlink()
