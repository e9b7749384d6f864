"""From what is written on a command line to image files: files, folders, patterns, a list."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from tlkit.errors import DataError, close_matches
from tlkit.parts.source import IMAGE_SUFFIXES


def image_paths(given: Iterable[str], lines: Iterable[str]) -> Iterator[str]:
    """The images that paths stand for, one by one and without holding all of them.

    Args:
        given: files; folders, searched for images in all folders below but hidden ones; patterns such
            as ``photos/*.jpg``; ``-`` for `lines`.
        lines: one path each.

    Raises:
        DataError: a path that was given is not there, or holds no image; before any is yielded.
    """
    given = list(given)
    for path in given:
        _must_be_there(path)
    return _found(given, lines)


def _found(given: Iterable[str], lines: Iterable[str]) -> Iterator[str]:
    for path in given:
        if path == "-":
            yield from (line.rstrip("\r\n") for line in lines if line.strip())
        elif Path(path).is_dir():
            yield from _below(path)
        elif Path(path).exists():
            yield path
        else:
            yield from sorted(glob.glob(path, recursive=True))  # noqa: PTH207  Path's has no absolute patterns


def _below(folder: str) -> Iterator[str]:
    for where, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if Path(name).suffix.lower() in IMAGE_SUFFIXES and not name.startswith("."):
                yield os.path.join(where, name)  # noqa: PTH118  a Path for each of a million is slow


def _must_be_there(path: str) -> None:
    if path == "-":
        return
    if Path(path).is_dir():
        if next(_below(path), None) is None:
            raise DataError(f"{path} holds no images")
    elif not Path(path).exists():
        if any(True for _ in glob.iglob(path, recursive=True)):  # noqa: PTH207
            return
        parent = Path(path).parent
        siblings = [each.name for each in parent.iterdir()] if parent.is_dir() else []
        raise DataError(f"{path} is not there{close_matches(Path(path).name, siblings)}")
