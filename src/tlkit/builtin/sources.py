"""Where labelled images come from: class folders, or a CSV file."""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING

from tlkit.errors import DataError, close_matches
from tlkit.parts.source import IMAGE_SUFFIXES, SPLITS, Sample, Source, SplitName
from tlkit.plugins.hookspecs import hookimpl

if TYPE_CHECKING:
    from tlkit.plugins.registry import Register

SPLIT_NAMES: Mapping[str, SplitName] = {
    "train": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
}
PROBLEMS_SHOWN = 10


@hookimpl
def tlkit_sources(register: Register) -> None:
    register("folder", folder)
    register("csv", csv_file)


def folder(root: Path, *, unlabelled: Path | None = None) -> Source:
    """A folder per class: ``<root>/cat/1.jpg``, or ``<root>/train/cat/1.jpg`` with the split above it.

    Args:
        root: the folder that holds them.
        unlabelled: a folder of images without labels.
    """
    _must_be_folder(root)
    left_out = unlabelled.resolve() if unlabelled else None
    folders = [each for each in _folders(root) if each.resolve() != left_out]
    split_folders = _split_folders(root, folders)
    class_folders: list[tuple[SplitName | None, Path]] = [
        (split, each)
        for split, parent in split_folders.items()
        for each in _folders(parent)
        if each.resolve() != left_out
    ] or [(None, each) for each in folders]
    classes = tuple(sorted({each.name for _, each in class_folders}, key=natural))
    _must_be_classes(root, classes)
    labels = {name: label for label, name in enumerate(classes)}
    images = {each: find_images(each) for _, each in class_folders}
    if empty := [str(each) for each, found in images.items() if not found]:
        raise DataError(_listed("class folders without images: fill them or remove them", empty))
    samples = [
        Sample(_id(image, root), image, labels[each.name], split)
        for split, each in class_folders
        for image in images[each]
    ]
    _must_be_in_every_split(root, classes, samples)
    return Source(classes, samples, _unlabelled(root, unlabelled))


def csv_file(
    root: Path,
    *,
    file: str = "labels.csv",
    path_column: str = "path",
    label_column: str = "label",
    split_column: str | None = None,
    unlabelled: Path | None = None,
) -> Source:
    """A CSV file with a row per image: its path, its label and, if you like, its split.

    Args:
        root: the folder that the paths in the file start from.
        file: the CSV file, relative to the root.
        path_column: the column with the paths.
        label_column: the column with the class names.
        split_column: the column with "train", "val" or "test"; none: the toolkit draws the splits.
        unlabelled: a folder of images without labels.
    """
    _must_be_folder(root)
    table = root / file
    columns = [path_column, label_column, *([split_column] if split_column else [])]
    rows: list[tuple[str, str, SplitName | None]] = []
    seen: dict[str, int] = {}
    problems: list[str] = []
    for line, (path, label, *rest) in _rows(table, columns):
        name = PurePosixPath(path).as_posix()
        split = SPLIT_NAMES.get(rest[0].casefold()) if rest else None
        found = _path_problems(root, path)
        if name in seen:
            found.append(f"{path!r} stands in line {seen[name]} already")
        if not label:
            found.append(f"{label_column!r} is empty")
        if rest and not split:
            found.append(f"{split_column!r} is {rest[0]!r}: it must be train, val or test")
        problems += [f"line {line}: {problem}" for problem in found]
        seen.setdefault(name, line)
        rows.append((name, label, split))
    if problems:
        raise DataError(_listed(f"{table}: {_count(problems)}", problems))
    classes = tuple(sorted({label for _, label, _ in rows}, key=natural))
    _must_be_classes(table, classes)
    labels = {name: label for label, name in enumerate(classes)}
    samples = [Sample(name, root / name, labels[label], split) for name, label, split in rows]
    _must_be_in_every_split(table, classes, samples)
    return Source(classes, samples, _unlabelled(root, unlabelled))


def find_images(folder: Path) -> list[Path]:
    """The image files in a folder and below it, in natural order; hidden ones are left out."""

    def refuse(error: OSError) -> None:
        raise DataError(f"{error.filename} cannot be read: {error.strerror}") from error

    images: list[Path] = []
    visited: set[Path] = set()
    for parent, folders, files in os.walk(folder, onerror=refuse, followlinks=True):
        here = Path(parent)
        folders[:] = sorted(filter(_visible, folders), key=natural)
        if here.resolve() in visited:  # links can lead round in circles
            folders.clear()
            continue
        visited.add(here.resolve())
        images += [
            here / file for file in files if _visible(file) and Path(file).suffix.lower() in IMAGE_SUFFIXES
        ]
    return sorted(images, key=lambda image: natural(image.as_posix()))


def natural(text: str) -> tuple[list[str | int], str]:
    """A sort key that puts ``cat.2`` before ``cat.10``."""
    pieces = re.split(r"(\d+)", text.casefold())
    return [int(piece) if index % 2 else piece for index, piece in enumerate(pieces)], text


def _visible(name: str) -> bool:
    return not name.startswith(".") and name != "__MACOSX"


def _folders(parent: Path) -> list[Path]:
    folders = (each for each in parent.iterdir() if each.is_dir() and _visible(each.name))
    return sorted(folders, key=lambda each: natural(each.name))


def _split_folders(root: Path, folders: Sequence[Path]) -> dict[SplitName, Path]:
    """The folders that stand for splits, by split; none when the classes come right below the root."""
    found = [each for each in folders if each.name.casefold() in SPLIT_NAMES and _folders(each)]
    others = [each.name for each in folders if each not in found]
    if found and others:
        raise DataError(
            f"{root} holds split folders ({_names(each.name for each in found)}) and others "
            f"({_names(others)}): move the others away, or name a folder of images without labels "
            "with the option 'unlabelled'"
        )
    if folders and not found and all(each.name.casefold() in SPLIT_NAMES for each in folders):
        raise DataError(
            f"{root}: {_names(each.name for each in folders)} hold no class folders: sort their images "
            "into a folder per class, or list them in a file for the source 'csv'"
        )
    splits: dict[SplitName, Path] = {}
    for each in found:
        split = SPLIT_NAMES[each.name.casefold()]
        if split in splits:
            raise DataError(f"{root}: {splits[split].name} and {each.name} are the same split: keep one")
        splits[split] = each
    return splits


def _unlabelled(root: Path, folder: Path | None) -> list[Sample]:
    if folder is None:
        return []
    _must_be_folder(folder)
    images = find_images(folder)
    if not images:
        raise DataError(f"{folder} holds no images: add some, or leave 'unlabelled' out")
    return [Sample(_id(image, root), image) for image in images]


def _id(image: Path, root: Path) -> str:
    return Path(os.path.relpath(image, root)).as_posix()


def _rows(table: Path, columns: Sequence[str]) -> Iterator[tuple[int, list[str]]]:
    """Line number and the wanted fields of each row, without the space around them."""
    if not table.is_file():
        siblings = [each.name for each in table.parent.glob("*.csv")]
        raise DataError(f"{table} is not there{close_matches(table.name, siblings)}")
    try:
        with table.open(encoding="utf-8-sig", newline="") as lines:
            reader = csv.DictReader(lines)
            header = list(reader.fieldnames or [])
            missing = [
                f"no column {column!r}{close_matches(column, header)}"
                for column in columns
                if column not in header
            ]
            if missing:
                raise DataError(f"{table}: {'; '.join(missing)}; it has {_names(header) or 'no columns'}")
            for row in reader:
                yield reader.line_num, [(row[column] or "").strip() for column in columns]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{table} cannot be read as a CSV file in UTF-8: {error}") from error


def _path_problems(root: Path, path: str) -> list[str]:
    as_windows = PureWindowsPath(path)  # knows both kinds of slash, and drives
    if not path:
        return ["the path is empty"]
    if as_windows.anchor or ".." in as_windows.parts:
        return [f"{path!r} leads out of {root}: paths must be relative to it and stay inside"]
    return [] if (root / path).is_file() else [f"{path!r} is not a file in {root}"]


def _must_be_folder(folder: Path) -> None:
    if folder.is_dir():
        return
    if folder.exists():
        raise DataError(f"{folder} is a file: name the folder that holds the images")
    parent = folder.parent
    siblings = [each.name for each in _folders(parent)] if parent.is_dir() else []
    raise DataError(f"folder {folder} is not there{close_matches(folder.name, siblings)}")


def _must_be_classes(where: Path, classes: Sequence[str]) -> None:
    if len(classes) > 1:
        return
    found = f"only one class, {classes[0]!r}" if classes else "no classes"
    due = "a label column with at least two values" if where.is_file() else "a folder per class, at least two"
    raise DataError(f"{where} has {found}: it needs {due}")


def _must_be_in_every_split(where: Path, classes: Sequence[str], samples: Sequence[Sample]) -> None:
    present = {(sample.split, sample.label) for sample in samples}
    splits = [split for split in SPLITS if any((split, label) in present for label in range(len(classes)))]
    lacking = [
        f"{split} has no images of class {name!r}"
        for split in splits
        for label, name in enumerate(classes)
        if (split, label) not in present
    ]
    if lacking:
        raise DataError(_listed(f"{where}: every split needs every class", lacking))


def _listed(head: str, problems: Sequence[str]) -> str:
    more = len(problems) - PROBLEMS_SHOWN
    shown = [*problems[:PROBLEMS_SHOWN], *([f"and {more} more"] if more > 0 else [])]
    return "\n".join([head, *(f"  - {problem}" for problem in shown)])


def _count(problems: Sequence[str]) -> str:
    return "1 problem" if len(problems) == 1 else f"{len(problems)} problems"


def _names(names: Iterable[str]) -> str:
    return ", ".join(names)
