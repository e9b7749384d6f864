"""Reads splits from a CSV file, in place of drawing them."""

from __future__ import annotations

import csv
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from tlkit.errors import DataError, close_matches
from tlkit.parts.source import SPLITS, SplitName
from tlkit.utils.csv_cells import unescape
from tlkit.utils.formatting import bulleted, plural
from tlkit.utils.regular_files import check_regular

if TYPE_CHECKING:
    from tlkit.data.images import Image

#: Columns that name an image: in files written for this purpose, and in a run folder's splits.csv.
ID_COLUMNS = ("image", "id")


def read_split_file(path: Path, known: Collection[str]) -> dict[str, SplitName]:
    """Reads the split of each image, by its id.

    Rows of unlabelled images, as a run folder's splits.csv has them, are passed over.

    Args:
        path: a CSV file with columns ``image`` (or ``id``) and ``split``; others are not read.
        known: ids of the source's labelled images.

    Raises:
        DataError: the file cannot be read, or names images that do not exist.
    """
    assignment: dict[str, SplitName] = {}
    try:
        check_regular(path)
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = csv.reader(file)
            header = next(rows, [])
            columns = [header.index(name) for name in ID_COLUMNS if name in header][:1]
            if not columns or "split" not in header:
                raise DataError(f"{path}: needs the columns image and split, and has {', '.join(header)}")
            for row in rows:
                _take_row(path, rows.line_num, row, columns[0], header.index("split"), assignment)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} cannot be read (data.splits): {error}") from error
    if unknown := [image for image in assignment if image not in known]:
        lines = [
            f"{image!r}{close_matches(image, known) if len(known) < 10_000 else ''}" for image in unknown
        ]
        head = f"{path}: {plural(len(unknown), 'image')} that the source does not have"
        raise DataError(f"{bulleted(head, lines, 5)}\nRemove these rows, or correct data.root")
    return assignment


def _take_row(
    path: Path, line: int, row: Sequence[str], image: int, split: int, assignment: dict[str, SplitName]
) -> None:
    """Adds a row's image to those before it."""
    if not row:
        return
    if len(row) <= max(image, split):
        raise DataError(f"{path}: line {line} has {len(row)} cells, which are too few")
    name, value = unescape(row[image]), row[split].strip()
    if value == "unlabelled":
        return
    if value not in SPLITS:
        raise DataError(f"{path}: line {line}: the split must be {', '.join(SPLITS)}, and is {value!r}")
    if assignment.setdefault(name, value) != value:
        raise DataError(f"{path}: line {line}: {name} is in the split {assignment[name]!r} above, too")


def assign_splits(
    images: Sequence[Image], assignment: Mapping[str, SplitName], path: Path
) -> tuple[list[Image], list[tuple[str, str]]]:
    """Gives images the splits of a file, in place of the source's.

    Returns:
        The images that the file lists, and (id, reason) of each of the others.
    """
    listed = [
        replace(image, sample=replace(image.sample, split=assignment[image.sample.id]))
        for image in images
        if image.sample.id in assignment
    ]
    rejected = [
        (image.sample.id, f"is not listed in {path}") for image in images if image.sample.id not in assignment
    ]
    return listed, rejected
