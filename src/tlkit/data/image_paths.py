"""Finds the image files that command-line arguments name: files, folders, patterns, or a list."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from tlkit.errors import DataError, close_matches
from tlkit.parts.source import IMAGE_SUFFIXES

#: The argument that stands for a list of paths.
STDIN = "-"


def image_paths(arguments: Iterable[str], lines: Iterable[str]) -> Iterator[str]:
    """Returns an iterator over the image files that arguments name, which never holds all of them.

    Args:
        arguments: files; folders, which are searched for images with all folders below them, except hidden
            ones (a folder that cannot be read is yielded itself); patterns such as ``photos/*.jpg``; ``-``
            for `lines`.
        lines: one path each, such as standard input.

    Raises:
        DataError: a path does not exist, or holds no images; before any path is yielded.
    """
    arguments = list(arguments)
    for path in arguments:
        _check(path)
    return _expand(arguments, lines)


def _expand(arguments: Iterable[str], lines: Iterable[str]) -> Iterator[str]:
    for path in arguments:
        if path == STDIN:
            yield from (line.rstrip("\r\n") for line in lines if line.strip())
        elif Path(path).is_dir():
            yield from _images_below(path)
        elif Path(path).exists():
            yield path
        else:
            yield from sorted(glob.glob(path, recursive=True))  # noqa: PTH207  Path's has no absolute patterns


def _images_below(folder: str) -> Iterator[str]:
    """Yields the images in a folder and below it, and each folder that cannot be read, as if it were one."""
    unreadable: list[str] = []
    visited: set[str] = set()
    walk = os.walk(folder, onerror=lambda error: unreadable.append(error.filename), followlinks=True)
    for parent, subfolders, files in walk:
        yield from unreadable  # reading it fails, with the reason
        unreadable.clear()
        if (target := os.path.realpath(parent)) in visited:  # a link can lead back to a parent
            subfolders.clear()
            continue
        visited.add(target)
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        for name in sorted(files):
            if Path(name).suffix.lower() in IMAGE_SUFFIXES and not name.startswith("."):
                yield os.path.join(parent, name)  # noqa: PTH118  a Path for each of a million is slow
    yield from unreadable


def _check(path: str) -> None:
    """Raises if an argument names no file."""
    if path == STDIN:
        return
    if Path(path).is_dir():
        if next(_images_below(path), None) is None:
            raise DataError(f"{path} holds no images")
    elif not Path(path).exists():
        if next(glob.iglob(path, recursive=True), None) is not None:  # noqa: PTH207
            return
        parent = Path(path).parent
        siblings = [sibling.name for sibling in parent.iterdir()] if parent.is_dir() else []
        raise DataError(f"{path} does not exist{close_matches(Path(path).name, siblings)}")
