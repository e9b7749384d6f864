"""The built-in sources of labelled images: class folders, or a CSV file."""

from __future__ import annotations

import csv
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING

from natsort import natsort_keygen, ns

from tlkit.errors import DataError, close_matches
from tlkit.parts.source import IMAGE_SUFFIXES, SPLITS, Sample, Source, SplitName
from tlkit.plugins.hookspecs import hookimpl
from tlkit.utils.formatting import bulleted, plural, shortlist
from tlkit.utils.regular_files import check_regular

if TYPE_CHECKING:
    from tlkit.plugins.registry import Register

SPLIT_NAMES: Mapping[str, SplitName] = {
    "train": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
}
#: How many problems an error lists.
PROBLEMS_SHOWN = 10
#: What is between the labels of an image in most files.
SEPARATORS = ("|", ";", ",")
#: What a cell says in the column of a class.
HAS_CLASS: Mapping[str, bool] = {"1": True, "true": True, "0": False, "false": False}

_natsort_key = natsort_keygen(alg=ns.IGNORECASE)


@hookimpl
def tlkit_sources(register: Register) -> None:
    register("folder", folder)
    register("csv", csv_file)


def folder(root: Path, *, unlabelled: Path | None = None) -> Source:
    """Lists the images of a folder per class: ``<root>/cat/1.jpg``.

    The folders of the classes may also be in a folder per split: ``<root>/train/cat/1.jpg``.

    Args:
        root: the folder that contains them.
        unlabelled: a folder of images without labels.
    """
    _check_folder(root)
    excluded = unlabelled.resolve() if unlabelled else None
    subfolders = [path for path in _subfolders(root) if path.resolve() != excluded]
    class_folders: list[tuple[SplitName | None, Path]] = [
        (split, path)
        for split, parent in _split_folders(root, subfolders).items()
        for path in _subfolders(parent)
        if path.resolve() != excluded
    ] or [(None, path) for path in subfolders]
    classes = tuple(sorted({path.name for _, path in class_folders}, key=natural))
    _check_classes(root, classes)
    labels = {name: label for label, name in enumerate(classes)}
    images = {path: find_images(path) for _, path in class_folders}
    if empty := [str(path) for path, files in images.items() if not files]:
        head = "class folders without images: fill them or remove them"
        raise DataError(bulleted(head, empty, PROBLEMS_SHOWN))
    samples = [
        Sample(name, image, labels[path.name], split)
        for split, path in class_folders
        for name, image in zip(_ids(images[path], path, root), images[path], strict=True)
    ]
    _check_every_split(root, classes, samples)
    return Source(classes, samples, _unlabelled(root, unlabelled))


def csv_file(
    root: Path,
    *,
    file: str = "labels.csv",
    path_column: str = "path",
    label_column: str = "label",
    split_column: str | None = None,
    separator: str | None = None,
    label_columns: list[str] | None = None,
    unlabelled: Path | None = None,
) -> Source:
    """Lists the images in a CSV file, which has a row per image with its path, label and, optionally, split.

    An image has several labels, or none, with `separator` or `label_columns`.

    Args:
        root: the folder that the paths are relative to; absolute ones must lead into it.
        file: the CSV file, relative to the root.
        path_column: the column of the paths.
        label_column: the column of the class names.
        split_column: the column of the splits, "train", "val" or "test"; none: tlkit draws the splits.
        separator: what is between the labels of an image, such as "|"; an empty cell is an image without any.
        label_columns: in place of `label_column`: a column for each class, with 1 or True where the image has
            it and 0 or False where it has not.
        unlabelled: a folder of images without labels.
    """
    _check_folder(root)
    _check_label_options(separator, label_columns)
    table, several = root / file, separator is not None or label_columns is not None
    in_columns = label_columns or [label_column]
    columns = [path_column, *in_columns, *([split_column] if split_column else [])]
    rows: list[tuple[str, tuple[str, ...], SplitName | None]] = []
    lines: dict[str, int] = {}
    problems: list[str] = []
    for line, (path, *cells) in _read_rows(table, columns):
        name = _inside(root, path)
        written = cells.pop() if split_column else ""
        split = SPLIT_NAMES.get(written.casefold())
        labels, mistakes = _row_labels(cells, label_column, separator, label_columns)
        mistakes = [*_path_problems(root, path, name), *mistakes]
        if name and lines.setdefault(name, line) != line:
            mistakes.append(f"{path!r} is in line {lines[name]} already")
        if split_column and not split:
            mistakes.append(f"{split_column!r} is {written!r}: it must be train, val or test")
        problems += [f"line {line}: {mistake}" for mistake in mistakes]
        rows.append((name or path, labels, split))
    if problems:
        raise DataError(bulleted(f"{table}: {plural(len(problems), 'problem')}", problems, PROBLEMS_SHOWN))
    classes = tuple(
        label_columns or sorted({label for _, labels, _ in rows for label in labels}, key=natural)
    )
    if not (several and classes):  # of several labels, one class is a question, too
        _check_classes(table, classes)
    if label_columns is None:
        _check_separator(table, classes, separator)
    if separator is not None and all(len(labels) < 2 for _, labels, _ in rows):
        _check_unused_separator(table, classes, separator)
    index = {name: position for position, name in enumerate(classes)}
    samples = []
    for name, labels, split in rows:
        indices = tuple(sorted(index[label] for label in labels))
        one, all_of_them = (None, indices) if several else (indices[0], None)
        samples.append(Sample(name, root / name, one, split, labels=all_of_them))
    if not several:
        _check_every_split(table, classes, samples)
    return Source(classes, samples, _unlabelled(root, unlabelled))


def _check_label_options(separator: str | None, label_columns: Sequence[str] | None) -> None:
    if separator == "":
        raise DataError("separator must not be empty: set what is between the labels of an image")
    if label_columns == []:
        raise DataError("label_columns must not be empty: name a column for each class")
    if separator is not None and label_columns is not None:
        raise DataError("set either separator or label_columns, not both")
    if twice := _repeated(label_columns or ()):
        raise DataError(f"label_columns names {shortlist(twice)} more than once")


def _row_labels(
    cells: Sequence[str], label_column: str, separator: str | None, label_columns: Sequence[str] | None
) -> tuple[tuple[str, ...], list[str]]:
    """Returns the labels in a row's cells, and what is wrong with them."""
    if label_columns is not None:
        marked = list(zip(label_columns, cells, strict=True))
        wrong = [
            f"{name!r} is {cell!r}: it must be 0 or 1, or False or True"
            for name, cell in marked
            if cell.casefold() not in HAS_CLASS
        ]
        return tuple(name for name, cell in marked if HAS_CLASS.get(cell.casefold())), wrong
    (cell,) = cells
    if separator is None:
        empty = f"{label_column!r} is empty (images that may have none, or several, take a separator)"
        return (cell,), [] if cell else [empty]
    labels = [label.strip() for label in cell.split(separator)] if cell else []
    wrong = [] if all(labels) else [f"{label_column!r} is {cell!r}: a label in it is empty"]
    wrong += [f"{label_column!r} has {name!r} twice" for name in set(labels) if labels.count(name) > 1]
    return tuple(labels), wrong


def _check_separator(table: Path, classes: Sequence[str], used: str | None) -> None:
    """Raises if a class is made of others: such a file has another separator, or any at all."""
    for name in classes:
        for separator in SEPARATORS:
            if separator == used:
                continue
            parts = [part.strip() for part in name.split(separator)]
            if len(parts) > 1 and set(parts) <= set(classes):
                listed = " and ".join(map(repr, parts))
                raise DataError(
                    f"{table}: {name!r} is made of the classes {listed}. If images have several labels, set "
                    f'task = "multilabel" in a recipe and separator = "{separator}" in its source, or give '
                    f"tlkit fit --task multilabel --separator {separator!r}. If it is one class, write its "
                    f"name without {separator!r}, such as {' and '.join(parts)!r}"
                )


def _check_unused_separator(table: Path, classes: Sequence[str], used: str) -> None:
    """Raises if the separator is in no cell, and another divides the cells into labels that they share.

    Names of single classes often have spaces: these must make fewer labels than there are classes.
    """
    for separator in (*SEPARATORS, " "):
        divided = [{part.strip() for part in name.split(separator)} for name in classes]
        parts, labels = sum(map(len, divided)), len(set().union(*divided))
        if labels < (len(classes) if separator == " " else parts):
            example = next(name for name in classes if separator in name)
            raise DataError(
                f"{table}: no cell has {used!r}, and {example!r} looks like several labels: divided at "
                f"{separator!r}, {plural(len(classes), 'different cell')} have {plural(labels, 'label')}. "
                f'Set separator = "{separator}" in a recipe\'s source, or give --separator {separator!r}. '
                f"If each is one class, write its name without {separator!r}"
            )


def find_images(folder: Path) -> list[Path]:
    """Returns the image files in a folder and all folders below it, in natural order, without hidden ones."""

    def fail(error: OSError) -> None:
        raise _unreadable(error) from error

    top = os.fspath(folder)
    images: list[str] = []  # strings until the end: a Path costs more than all the rest
    visited: set[str] = set()
    for parent, subfolders, files in os.walk(top, onerror=fail, followlinks=True):
        subfolders[:] = sorted(filter(_is_visible, subfolders), key=natural)
        if (target := os.path.realpath(parent)) in visited:  # a link can lead back to a parent
            subfolders.clear()
            continue
        visited.add(target)
        images += [os.path.join(parent, file) for file in files if _is_image(file)]  # noqa: PTH118
    return [Path(image) for image in sorted(images, key=lambda image: natural(image[len(top) :]))]


def natural(text: str) -> tuple[object, str]:
    """Returns a sort key that puts ``cat.2`` before ``cat.10``, and ignores case unless strings tie."""
    return _natsort_key(text), text


def _is_image(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES and _is_visible(name)  # noqa: PTH122


def _is_visible(name: str) -> bool:
    return not name.startswith(".") and name != "__MACOSX"


def _subfolders(parent: Path) -> list[Path]:
    try:
        with os.scandir(parent) as entries:  # unlike a Path, an entry raises where it may not be looked at
            subfolders = [Path(entry.path) for entry in entries if entry.is_dir() and _is_visible(entry.name)]
    except OSError as error:
        raise _unreadable(error) from error
    return sorted(subfolders, key=lambda path: natural(path.name))


def _unreadable(error: OSError) -> DataError:
    return DataError(f"{error.filename} cannot be read: {error.strerror}")


def _split_folders(root: Path, subfolders: Sequence[Path]) -> dict[SplitName, Path]:
    """Returns the folder of each split; nothing if the root contains the class folders themselves."""
    of_splits = [path for path in subfolders if path.name.casefold() in SPLIT_NAMES and _subfolders(path)]
    others = [path.name for path in subfolders if path not in of_splits]
    if of_splits and others:
        raise DataError(
            f"{root} contains split folders ({', '.join(path.name for path in of_splits)}) and others "
            f"({', '.join(others)}): move the others away, or name a folder of images without labels "
            "with the option 'unlabelled'"
        )
    if subfolders and not of_splits and all(name.casefold() in SPLIT_NAMES for name in others):
        raise DataError(
            f"{root}: {', '.join(others)} contain no class folders: sort their images into a folder per "
            "class, or list them in a file for the source 'csv'"
        )
    splits: dict[SplitName, Path] = {}
    for path in of_splits:
        split = SPLIT_NAMES[path.name.casefold()]
        if split in splits:
            raise DataError(f"{root}: {splits[split].name} and {path.name} are the same split: keep one")
        splits[split] = path
    return splits


def _unlabelled(root: Path, folder: Path | None) -> list[Sample]:
    if folder is None:
        return []
    _check_folder(folder)
    images = find_images(folder)
    if not images:
        raise DataError(f"{folder} holds no images: add some, or leave 'unlabelled' out")
    return [Sample(name, image) for name, image in zip(_ids(images, folder, root), images, strict=True)]


def _ids(images: Sequence[Path], folder: Path, root: Path) -> list[str]:
    """Returns the path of each image that is below `folder`, relative to `root`."""
    above = Path(os.path.relpath(folder, root)).as_posix()
    prefix = "" if above == "." else f"{above}/"
    return [prefix + image.relative_to(folder).as_posix() for image in images]


def _read_rows(table: Path, columns: Sequence[str]) -> Iterator[tuple[int, list[str]]]:
    """Yields each row's line number and its values in `columns`, stripped of white space."""
    if not table.is_file():
        siblings = [path.name for path in table.parent.glob("*.csv")]
        raise DataError(f"{table} does not exist{close_matches(table.name, siblings)}")
    try:
        check_regular(table)
        with table.open(encoding="utf-8-sig", newline="") as lines:
            reader = csv.DictReader(lines)
            header = list(reader.fieldnames or [])
            missing = [
                f"no column {column!r}{close_matches(column, header)}"
                for column in columns
                if column not in header
            ]
            if missing:
                listed = ", ".join(header) or "no columns"
                raise DataError(f"{table}: {'; '.join(missing)}; it has {listed}")
            if twice := [name for name in _repeated(header) if name in columns]:
                raise DataError(f"{table} has several columns {shortlist(twice)}: keep one of them")
            for row in reader:
                yield reader.line_num, [(row[column] or "").strip() for column in columns]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{table} cannot be read as a CSV file in UTF-8: {error}") from error


def _repeated(names: Sequence[str]) -> list[str]:
    """Returns the names that are there more than once."""
    return [name for name, count in Counter(names).items() if count > 1]


def _inside(root: Path, path: str) -> str | None:
    """Returns a CSV file's path relative to the root, with ``/``; None where it leads out of the root."""
    as_windows = PureWindowsPath(path)  # knows both kinds of slashes, and drives
    if ".." in as_windows.parts:
        return None
    if not as_windows.anchor:
        return PurePosixPath(path).as_posix()
    absolute = Path(path)
    return absolute.relative_to(root).as_posix() if absolute.is_relative_to(root) else None


def _path_problems(root: Path, path: str, name: str | None) -> list[str]:
    if not path:
        return ["the path is empty"]
    if name is None:
        return [f"{path!r} leads out of {root}: paths must stay inside it"]
    return [] if (root / name).is_file() else [f"{path!r} is not a file in {root}"]


def _check_folder(folder: Path) -> None:
    if folder.is_dir():
        return
    if folder.exists():
        raise DataError(
            f"{folder} is a file: name the folder that contains the images, or a .csv file with the columns "
            "path and label"
        )
    parent = folder.parent
    siblings = [path.name for path in _subfolders(parent)] if parent.is_dir() else []
    raise DataError(f"folder {folder} does not exist{close_matches(folder.name, siblings)}")


def _check_classes(source: Path, classes: Sequence[str]) -> None:
    """Raises unless a folder or CSV file has at least two classes."""
    if len(classes) > 1:
        return
    count = f"only one class, {classes[0]!r}" if classes else "no classes"
    if source.is_file():
        raise DataError(f"{source} has {count}: it needs a label column with at least two values")
    tables = sorted(table.name for table in source.glob("*.csv"))
    listed = f"; or name its {' or '.join(tables)} instead, if it lists paths and labels" if tables else ""
    raise DataError(f"{source} has {count}: it needs a folder per class, at least two{listed}")


def _check_every_split(source: Path, classes: Sequence[str], samples: Sequence[Sample]) -> None:
    """Raises unless each split that a folder or CSV file assigns has images of every class."""
    present = {(sample.split, label) for sample in samples for label in sample.class_indices}
    splits = [split for split in SPLITS if any((split, label) in present for label in range(len(classes)))]
    missing = [
        f"{split} has no images of class {name!r}"
        for split in splits
        for label, name in enumerate(classes)
        if (split, label) not in present
    ]
    if missing:
        raise DataError(bulleted(f"{source}: every split needs every class", missing, PROBLEMS_SHOWN))
