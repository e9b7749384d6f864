"""Reads regular files only: a pipe or a device, or a link to one, could block for ever or never end."""

from __future__ import annotations

import os
import stat
from pathlib import Path

#: Files of text, such as recipes and JSON, are smaller than this; in bytes.
MAX_TEXT = 256 * 2**20


def check_regular(path: Path) -> int:
    """Returns the size in bytes of a regular file that is not empty, links followed.

    For files that a library opens by their path.

    Raises:
        OSError: there is no such file, it is not a regular one, or it is empty.
    """
    try:
        status = path.stat()
    except ValueError as error:  # a null character in the path
        raise OSError(str(error)) from error
    _check(status)
    if not status.st_size:  # also files of /proc, which may have no end
        raise OSError("the file is empty")
    return status.st_size


def read_regular(path: Path, limit: int = MAX_TEXT) -> bytes:
    """Reads a regular file of at most `limit` bytes, links followed.

    Raises:
        OSError: there is no such file, it is not a regular one, or it is too large.
    """
    # opened without blocking, and checked after it is open, so that no other file can take its place
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    try:
        descriptor = os.open(path, flags)
    except ValueError as error:  # a null character in the path
        raise OSError(str(error)) from error
    with open(descriptor, "rb") as file:  # noqa: PTH123  it has a descriptor, not a path
        status = os.fstat(descriptor)
        _check(status)
        if status.st_size > limit:
            raise OSError(f"the file is larger than {limit:,} bytes")
        # files of /proc have no size, and no end
        return file.read(status.st_size)


def _check(status: os.stat_result) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError("it is a folder")
    if not stat.S_ISREG(status.st_mode):
        raise OSError("it is not a regular file")
