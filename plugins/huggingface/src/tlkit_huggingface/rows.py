"""From the rows of tables to samples."""

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
    """Where an image is, and what it is of; `label` is a class's name."""

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
    """Samples of all rows of all tables.

    Args:
        where: what messages call the tables.
        tables: by the name of their split.
        image: the column with the images, or None to find it.
        label: the column with the classes, or None to find it.
        own_splits: whether to keep the tables' splits.

    Raises:
        DataError: the columns cannot be told, rows have no image, or there are too few classes.
    """
    first = next(iter(tables.values())).features
    image = image_column(where, first, image)
    label = label_column(where, first, label, image)
    tables = {split: table.cast_column(image, Image(decode=False)) for split, table in tables.items()}
    content: dict[Path, tuple[str, int]] = {}
    rows = [row for split in tables for row in _rows(where, split, tables[split], image, label, content)]
    classes = _classes(where, rows, first[label], label)
    number = {name: place for place, name in enumerate(classes)}
    splits = _splits(where, rows) if own_splits else {}
    samples = [
        Sample(row.id, row.path, number[row.label], splits.get(row.split)) for row in rows if row.label
    ]
    unlabelled = [Sample(row.id, row.path) for row in rows if not row.label]

    def make(sample: Sample) -> bytes:
        split, place = content[sample.path]
        found: bytes = tables[split][place][image]["bytes"]
        return found

    return Source(classes, samples, unlabelled, make=make if content else None)


def _rows(
    where: str,
    split: str,
    table: Dataset,
    image: str,
    label: str,
    content: dict[Path, tuple[str, int]],
) -> list[_Row]:
    """A table's rows; notes in `content` which images are inside it, and in which row."""
    columns: Any = table.with_format("arrow")[:]  # maps the file, copies nothing
    paths = pc.struct_field(columns[image], "path").to_pylist()
    inside = pc.is_valid(pc.struct_field(columns[image], "bytes")).to_pylist()
    labels = _names(columns[label], table.features[label])
    # the fingerprint is datasets' own, of the data and all that was done to it
    key = hashlib.sha256(repr((table._fingerprint, image)).encode()).hexdigest()[:20]
    folder = generated_folder() / "datasets" / key
    rows, problems = [], []
    for place, (path, has_bytes, label_name) in enumerate(zip(paths, inside, labels, strict=True)):
        file, name = Path(path or ""), f"{split}/{place:07d}"
        if has_bytes:
            suffix = file.suffix.lower() if file.suffix.lower() in IMAGE_SUFFIXES else ""
            file = folder / split / f"{place:07d}{suffix}"
            content[file] = (split, place)
        elif not path or not file.is_file():
            problems.append(f"{split}, row {place}: {f'{path} is no file' if path else 'no image'}")
        elif file.is_relative_to(where):
            name = file.relative_to(where).as_posix()
        rows.append(_Row(name, file, split, label_name))
    if problems:
        more = [f"and {len(problems) - PROBLEMS_SHOWN} more"] if len(problems) > PROBLEMS_SHOWN else []
        lines = "\n".join(f"  - {problem}" for problem in [*problems[:PROBLEMS_SHOWN], *more])
        raise DataError(f"{where}: rows of column {image!r} without an image\n{lines}")
    return rows


def _names(column: pa.ChunkedArray, feature: Any) -> list[str | None]:
    """Each row's class by name; None where it has none."""
    values = column.to_pylist()
    if isinstance(feature, ClassLabel):
        return [None if value is None or value < 0 else feature.names[value] for value in values]
    return [None if value in (None, "", -1) else str(value) for value in values]


def _classes(where: str, rows: Sequence[_Row], feature: Any, label: str) -> tuple[str, ...]:
    """The classes that have images, in the order of their declaration, or else of their names or numbers."""
    found = {row.label for row in rows if row.label}
    if isinstance(feature, ClassLabel):
        classes = tuple(name for name in feature.names if name in found)
    elif feature.dtype.startswith(("int", "uint")):
        classes = tuple(sorted(found, key=int))
    else:
        classes = tuple(sorted(found))
    if len(classes) < 2:
        only = f"only one class, {classes[0]!r}" if classes else "no labels"
        raise DataError(f"{where}: column {label!r} has {only}; at least two classes are needed")
    return classes


def _splits(where: str, rows: Sequence[_Row]) -> dict[str, SplitName]:
    """What each table with labels is for; nothing where there is one, which is then drawn from."""
    names = list(dict.fromkeys(row.split for row in rows if row.label))
    if len(names) == 1:
        return {}
    if unknown := [name for name in names if name.casefold() not in SPLITS]:
        raise DataError(
            f"{where} has splits that are none of train, validation and test: {', '.join(unknown)}; "
            "set own_splits = false to have the splits drawn from all images"
        )
    found = {name: SPLITS[name.casefold()] for name in names}
    if lacking := [split for split in ("train", "test") if split not in found.values()]:
        raise DataError(
            f"{where} has the splits {', '.join(names)}, and none to {' or to '.join(lacking)} on; "
            "set own_splits = false to have the splits drawn from all images"
        )
    return found
