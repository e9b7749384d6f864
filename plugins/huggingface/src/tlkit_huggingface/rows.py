"""Turns the rows of tables into samples."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from datasets import ClassLabel, Dataset, Image

from tlkit import IMAGE_SUFFIXES, DataError, Sample, Source, SplitName, generated_folder
from tlkit_huggingface.columns import image_column, label_column

SPLITS: Mapping[str, SplitName] = {
    "train": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
}
PROBLEMS_SHOWN = 10


@dataclass(frozen=True)
class _Row:
    """An image of a table; `label` is the name of its class, or None."""

    id: str
    path: Path
    split: str
    label: str | None


def to_source(
    where: str,
    tables: Mapping[str, Dataset],
    image: str | None,
    label: str | None,
    *,
    own_splits: bool,
) -> Source:
    """Makes a source of all rows of all tables.

    Args:
        where: how messages call the tables.
        tables: by the name of their split.
        image: the column with the images, or None to find it.
        label: the column with the classes, or None to find it.
        own_splits: whether to use the tables' splits.

    Raises:
        DataError: the columns are ambiguous, rows have no image, or there are too few classes.
    """
    first = next(iter(tables.values())).features
    image = image_column(where, first, image)
    label = label_column(where, first, label, image)
    tables = {split: table.cast_column(image, Image(decode=False)) for split, table in tables.items()}
    embedded: dict[Path, tuple[str, int]] = {}
    rows = [row for split in tables for row in _rows(where, split, tables[split], image, label, embedded)]
    classes = _classes(where, rows, first[label], label)
    labels = {name: index for index, name in enumerate(classes)}
    splits = _splits(where, rows) if own_splits else {}
    samples = [
        Sample(row.id, row.path, labels[row.label], splits.get(row.split)) for row in rows if row.label
    ]
    unlabelled = [Sample(row.id, row.path) for row in rows if not row.label]

    def make(sample: Sample) -> bytes:
        split, index = embedded[sample.path]
        content: bytes = tables[split][index][image]["bytes"]
        return content

    return Source(classes, samples, unlabelled, make=make if embedded else None)


def _rows(
    where: str,
    split: str,
    table: Dataset,
    image: str,
    label: str,
    embedded: dict[Path, tuple[str, int]],
) -> list[_Row]:
    """Returns a table's rows; adds the images embedded in it to `embedded`, with split and row by path."""
    columns: Any = table.with_format("arrow")[:]  # memory-maps the file, copies nothing
    paths = pc.struct_field(columns[image], "path").to_pylist()
    is_embedded = pc.is_valid(pc.struct_field(columns[image], "bytes")).to_pylist()
    labels = _names(columns[label], table.features[label])
    # datasets' own fingerprint, of the data and all that was done to it
    key = hashlib.sha256(repr((table._fingerprint, image)).encode()).hexdigest()[:20]
    folder = generated_folder() / "datasets" / key
    rows, problems = [], []
    for index, (path, has_bytes, label_name) in enumerate(zip(paths, is_embedded, labels, strict=True)):
        file, name = Path(path or ""), f"{split}/{index:07d}"
        if has_bytes:
            suffix = file.suffix.lower() if file.suffix.lower() in IMAGE_SUFFIXES else ""
            file = folder / split / f"{index:07d}{suffix}"
            embedded[file] = (split, index)
        elif not path or not file.is_file():
            problems.append(f"{split}, row {index}: {f'{path} does not exist' if path else 'no image'}")
        elif file.is_relative_to(where):
            name = file.relative_to(where).as_posix()
        rows.append(_Row(name, file, split, label_name))
    if problems:
        more = [f"and {len(problems) - PROBLEMS_SHOWN} more"] if len(problems) > PROBLEMS_SHOWN else []
        lines = "\n".join(f"  - {problem}" for problem in [*problems[:PROBLEMS_SHOWN], *more])
        raise DataError(f"{where}: rows of column {image!r} without an image\n{lines}")
    return rows


def _names(column: pa.ChunkedArray, feature: Any) -> list[str | None]:
    """Returns the name of each row's class, or None."""
    values = column.to_pylist()
    if isinstance(feature, ClassLabel):
        return [None if value is None or value < 0 else feature.names[value] for value in values]
    return [None if value in (None, "", -1) else str(value) for value in values]


def _classes(where: str, rows: Sequence[_Row], feature: Any, label: str) -> tuple[str, ...]:
    """Returns the classes that have images, in their declared order, or sorted if it is not declared."""
    present = {row.label for row in rows if row.label}
    if isinstance(feature, ClassLabel):
        classes = tuple(name for name in feature.names if name in present)
    elif feature.dtype.startswith(("int", "uint")):
        classes = tuple(sorted(present, key=int))
    else:
        classes = tuple(sorted(present))
    if len(classes) < 2:
        only = f"only one class, {classes[0]!r}" if classes else "no labels"
        raise DataError(f"{where}: column {label!r} has {only}; at least two classes are needed")
    return classes


def _splits(where: str, rows: Sequence[_Row]) -> dict[str, SplitName]:
    """Returns the split of each table with labels; empty if there is only one, which tlkit then divides."""
    names = list(dict.fromkeys(row.split for row in rows if row.label))
    if len(names) == 1:
        return {}
    if unknown := [name for name in names if name.casefold() not in SPLITS]:
        raise DataError(
            f"{where} has splits other than train, validation and test: {', '.join(unknown)}; "
            "set own_splits = false to have the splits drawn from all images"
        )
    splits = {name: SPLITS[name.casefold()] for name in names}
    if missing := [split for split in ("train", "test") if split not in splits.values()]:
        raise DataError(
            f"{where} has the splits {', '.join(names)}, and none to {' or to '.join(missing)} on; "
            "set own_splits = false to have the splits drawn from all images"
        )
    return splits
