"""The built-in source that reads a CSV file."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING

from tlkit.builtin.sources import (
    PROBLEMS_SHOWN,
    SPLIT_NAMES,
    check_classes,
    check_every_split,
    check_folder,
    list_unlabelled,
    natural,
)
from tlkit.errors import DataError, close_matches
from tlkit.parts.source import Sample, Source, SplitName
from tlkit.plugins.hookspecs import hookimpl
from tlkit.utils.formatting import bulleted, plural, shortlist
from tlkit.utils.regular_files import check_regular

if TYPE_CHECKING:
    from tlkit.plugins.registry import Register

#: What is between the labels of an image in most files.
SEPARATORS = ("|", ";", ",")
#: What a cell says in the column of a class.
HAS_CLASS: Mapping[str, bool] = {"1": True, "true": True, "0": False, "false": False}


@hookimpl
def tlkit_sources(register: Register) -> None:
    register("csv", csv_file)


def csv_file(
    root: Path,
    *,
    file: str = "labels.csv",
    path_column: str = "path",
    label_column: str = "label",
    split_column: str | None = None,
    group_column: str | None = None,
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
        group_column: the column of the groups, such as patients or videos, that stay in the same fold of a
            cross-validation; an image whose cell is empty stands alone.
        separator: what is between the labels of an image, such as "|"; an empty cell is an image without any.
        label_columns: in place of `label_column`: a column for each class, with 1 or True where the image has
            it and 0 or False where it has not.
        unlabelled: a folder of images without labels.
    """
    check_folder(root)
    layout = _Layout(path_column, label_column, split_column, group_column, separator, label_columns)
    _check_label_options(separator, label_columns)
    table = root / file
    rows = _labelled_rows(table, root, layout)
    classes = _classes(table, rows, layout)
    index = {name: position for position, name in enumerate(classes)}
    samples = []
    for row in rows:
        indices = tuple(sorted(index[label] for label in row.labels))
        label, several = (None, indices) if layout.has_several else (indices[0], None)
        path = root / row.name
        samples.append(Sample(row.name, path, label, row.split, labels=several, group=row.group))
    if not layout.has_several:
        check_every_split(table, classes, samples)
    return Source(classes, samples, list_unlabelled(root, unlabelled))


@dataclass(frozen=True)
class _Layout:
    """Which columns of a CSV file say what; see `csv_file`."""

    path_column: str
    label_column: str
    split_column: str | None
    group_column: str | None
    separator: str | None
    label_columns: Sequence[str] | None

    @property
    def has_several(self) -> bool:
        """Whether an image may have several labels."""
        return self.separator is not None or self.label_columns is not None

    @property
    def columns(self) -> list[str]:
        """The columns that are read: of the path, of the labels, and, if there are, of split and group."""
        labels = self.label_columns or [self.label_column]
        others = [column for column in (self.split_column, self.group_column) if column]
        return [self.path_column, *labels, *others]


@dataclass(frozen=True)
class _Row:
    """A row of a CSV file: the path of an image relative to the root, its labels, its split and group."""

    name: str
    labels: tuple[str, ...]
    split: SplitName | None
    group: str | None


def _labelled_rows(table: Path, root: Path, layout: _Layout) -> list[_Row]:
    """Reads the rows of a CSV file.

    Raises:
        DataError: every mistake in them, with its line.
    """
    rows: list[_Row] = []
    lines: dict[str, int] = {}
    problems: list[str] = []
    for line, (path, *cells) in _read_rows(table, layout.columns):
        name = _inside(root, path)
        group = cells.pop() if layout.group_column else ""
        split_cell = cells.pop() if layout.split_column else ""
        split = SPLIT_NAMES.get(split_cell.casefold())
        labels, mistakes = _row_labels(cells, layout)
        mistakes = [*_path_problems(root, path, name), *mistakes]
        if name and lines.setdefault(name, line) != line:
            mistakes.append(f"{path!r} is in line {lines[name]} already")
        if layout.split_column and not split:
            mistakes.append(f"{layout.split_column!r} is {split_cell!r}: it must be train, val or test")
        problems += [f"line {line}: {mistake}" for mistake in mistakes]
        rows.append(_Row(name or path, labels, split, group or None))
    if problems:
        raise DataError(bulleted(f"{table}: {plural(len(problems), 'problem')}", problems, PROBLEMS_SHOWN))
    return rows


def _classes(table: Path, rows: Sequence[_Row], layout: _Layout) -> tuple[str, ...]:
    """Returns the class names.

    Raises:
        DataError: there are too few, or the labels look as if they were separated otherwise.
    """
    if layout.label_columns is not None:
        return tuple(layout.label_columns)
    classes = tuple(sorted({label for row in rows for label in row.labels}, key=natural))
    if not (layout.has_several and classes):  # of several labels, one class is a question, too
        check_classes(table, classes)
    _check_separator(table, classes, layout.separator)
    if layout.separator is not None and all(len(row.labels) < 2 for row in rows):
        _check_unused_separator(table, classes, layout.separator)
    return classes


def _check_label_options(separator: str | None, label_columns: Sequence[str] | None) -> None:
    if separator == "":
        raise DataError("separator must not be empty: set what is between the labels of an image")
    if label_columns == []:
        raise DataError("label_columns must not be empty: name a column for each class")
    if separator is not None and label_columns is not None:
        raise DataError("set either separator or label_columns, not both")
    if twice := _repeated(label_columns or ()):
        raise DataError(f"label_columns names {shortlist(twice)} more than once")


def _row_labels(cells: Sequence[str], layout: _Layout) -> tuple[tuple[str, ...], list[str]]:
    """Returns the labels in a row's cells, and what is wrong with them."""
    if layout.label_columns is not None:
        marked = list(zip(layout.label_columns, cells, strict=True))
        wrong = [
            f"{name!r} is {cell!r}: it must be 0 or 1, or False or True"
            for name, cell in marked
            if cell.casefold() not in HAS_CLASS
        ]
        return tuple(name for name, cell in marked if HAS_CLASS.get(cell.casefold())), wrong
    (cell,) = cells
    if layout.separator is None:
        empty = f"{layout.label_column!r} is empty (images that may have none, or several, take a separator)"
        return (cell,), [] if cell else [empty]
    labels = [label.strip() for label in cell.split(layout.separator)] if cell else []
    wrong = [] if all(labels) else [f"{layout.label_column!r} is {cell!r}: a label in it is empty"]
    wrong += [f"{layout.label_column!r} has {name!r} twice" for name in set(labels) if labels.count(name) > 1]
    return tuple(labels), wrong


def _check_separator(table: Path, classes: Sequence[str], used: str | None) -> None:
    """Raises if a class consists of other classes: then the file has a separator that was not named."""
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
