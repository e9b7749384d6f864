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
            ones; patterns such as ``photos/*.jpg``; ``-`` for `lines`. Among several, one that names no image
            is yielded itself, as is a folder that cannot be read: reading it fails, with the reason.
        lines: one path each, such as standard input.

    Raises:
        DataError: no argument names an image; before any path is yielded.
    """
    arguments = list(arguments)
    problems = [problem for path in arguments if (problem := why_no_images(path))]
    if problems and len(problems) == len(arguments):
        raise DataError("\n".join(problems))
    return _expand(arguments, lines)


def why_no_images(path: str) -> str | None:
    """Returns why an argument names no image, or None if it names some."""
    if path == STDIN:
        return None
    if Path(path).is_dir():
        return f"{path} holds no images" if next(_images_below(path), None) is None else None
    if Path(path).exists() or next(glob.iglob(path, recursive=True), None) is not None:  # noqa: PTH207
        return None
    parent = Path(path).parent
    siblings = [sibling.name for sibling in parent.iterdir()] if parent.is_dir() else []
    return f"{path} does not exist{close_matches(Path(path).name, siblings)}"


def _expand(arguments: Iterable[str], lines: Iterable[str]) -> Iterator[str]:
    for path in arguments:
        if path == STDIN:
            yield from (line.rstrip("\r\n") for line in lines if line.strip())
        elif Path(path).is_dir():
            yield from _or_itself(path, _images_below(path))
        elif Path(path).exists():
            yield path
        else:
            matches = sorted(glob.glob(path, recursive=True))  # noqa: PTH207  Path's has no absolute patterns
            yield from _expand_matches(matches) if matches else [path]


def _expand_matches(matches: Iterable[str]) -> Iterator[str]:
    """Yields what a pattern matches, and the images in folders, each once; a folder is before its content."""
    folders: set[Path] = set()
    for match in matches:
        path = Path(match)
        if not folders.isdisjoint(path.parents):
            continue
        if path.is_dir():
            folders.add(path)
            yield from _or_itself(match, _images_below(match))
        else:
            yield match


def _or_itself(folder: str, images: Iterator[str]) -> Iterator[str]:
    """Yields images, or the folder itself if there are none."""
    yield next(images, folder)
    yield from images


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
