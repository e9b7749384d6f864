"""Files and folders that are written completely or not at all."""

from __future__ import annotations

import os
import shutil
import stat
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

UNFINISHED = ".unfinished"
#: Seconds after which nobody writes to an unfinished file any more.
DAY = 86_400.0


@contextmanager
def atomic_write(path: Path, *, durable: bool = True) -> Iterator[Path]:
    """Yields a temporary path beside `path` that takes its place when the block ends without an error.

    The block creates a file or a folder there. A file replaces an existing one in one step. A folder cannot:
    for an instant the old one is at `replaced_path`, where a reader may look for it.

    Args:
        path: the file or folder.
        durable: let the content reach the disk before it takes its place, so that a power failure leaves what
            was there before, or all of it.

    Raises:
        OSError: the parent folder cannot be made, or the result cannot be renamed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{uuid.uuid4().hex[:8]}{UNFINISHED}")
    try:
        yield temporary
        for file in list(temporary.rglob("*")) if temporary.is_dir() else [temporary]:
            _share(file)
            if durable:
                _sync(file)
        if temporary.is_dir():
            _replace_folder(path, temporary)
        else:
            temporary.replace(path)
        if durable:
            _sync(path.parent)
    finally:
        remove(temporary)


def _share(path: Path) -> None:
    """Gives a file that can be read by this user alone the permissions of other new files.

    safetensors 0.8 writes such files (https://github.com/safetensors/safetensors/issues/782), which other
    users of a shared store or of a model could not read.
    """
    if stat.S_IMODE(path.lstat().st_mode) != 0o600:
        return
    new = path.with_name(f"{path.name}.{uuid.uuid4().hex[:8]}{UNFINISHED}")
    try:
        new.touch()
        mode = stat.S_IMODE(new.stat().st_mode)
    finally:
        new.unlink(missing_ok=True)
    if mode != 0o600:  # chmod is refused on some network file systems
        path.chmod(mode)


def _sync(path: Path) -> None:
    """Waits until a file, or the names in a folder, are on the disk; where a system cannot, it does not."""
    if path.is_dir() and os.name == "nt":
        return
    # Windows syncs only what is open for writing; elsewhere a file may be read-only
    descriptor = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _replace_folder(path: Path, temporary: Path) -> None:
    replaced = replaced_path(path)
    if is_there(path):
        remove(replaced)
        path.rename(replaced)
    try:
        temporary.rename(path)
    except OSError:
        if is_there(replaced):
            replaced.rename(path)
        raise
    # also one that a killed process left
    remove(replaced)


def replaced_path(folder: Path) -> Path:
    """Returns where a folder is while `atomic_write` puts another in its place."""
    return folder.with_name(f"{folder.name}.replaced")


def remove_unfinished(folder: Path, *, older_than: float = 0.0) -> None:
    """Removes what `atomic_write` left below a folder when its process was killed.

    Args:
        folder: the folder.
        older_than: seconds since it was changed; 0 only where no other process writes.
    """
    for left in list(folder.rglob(f"*{UNFINISHED}")):
        with suppress(OSError):  # it is finished, or somebody else's
            if left.lstat().st_mtime <= time.time() - older_than:
                remove(left)


def is_there(path: Path) -> bool:
    """Returns whether there is anything at `path`, if only a link to nothing."""
    return os.path.lexists(path)


def remove(path: Path) -> None:
    """Removes a file, a folder or a link as far as possible, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink(missing_ok=True)
