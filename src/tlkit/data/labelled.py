"""Labelled images outside a recipe: a folder per class, or a CSV file."""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from tlkit.errors import DataError
from tlkit.parts.source import Sample, Source
from tlkit.parts.task import SEPARATOR, join_labels
from tlkit.plugins.loader import load_registry
from tlkit.plugins.registry import Registry
from tlkit.recipe.schema import PartSpec
from tlkit.utils.regular_files import check_regular

#: Columns that are no classes.
NOT_CLASSES = ("path", "split", "group")
#: Columns that would be taken for classes, and what other programs write into them.
NO_CLASSES: Mapping[str, str] = {
    "labels": "if it has each image's labels, name it label",
    "tags": "if it has each image's labels, name it label",
    "is_valid": "name it split, with train and val in its cells, or remove it",
}


def describe_source(path: Path) -> tuple[PartSpec, Path]:
    """Returns the source and the root of labelled images that a user names.

    The paths in a CSV file are relative to its folder. Where some are absolute, the root is the folder that
    all of these images are in, so that a recipe says which folder it reads. Columns `split` and `group` are
    the images' splits and groups.

    Args:
        path: a folder with a folder per class, or a CSV file.

    Raises:
        DataError: the images are on several drives.
    """
    if path.suffix.lower() != ".csv":
        return PartSpec(name="folder"), path.absolute()
    header, paths = _header_and_paths(path)
    columns = {f"{name}_column": name for name in ("split", "group") if name in header}
    folders = {os.path.dirname(image) for image in paths if os.path.isabs(image)}  # noqa: PTH117, PTH120
    if folders and (relative := [image for image in paths if not os.path.isabs(image)]):  # noqa: PTH117
        raise DataError(
            f"{path}: some paths are absolute, and others are not, such as {relative[0]!r}: write all in one "
            "form"
        )
    if not folders:
        return PartSpec(name="csv", options={"file": path.name, **columns}), path.absolute().parent
    try:
        root = Path(os.path.commonpath(folders))
    except ValueError as error:  # Windows' drives
        raise DataError(f"{path}: the images have no folder in common: {error}") from error
    if root == Path(root.anchor):
        raise DataError(f"{path}: the images have no folder in common but {root}: put them below one")
    return PartSpec(name="csv", options={"file": str(path.absolute()), **columns}), root


def _header_and_paths(table: Path) -> tuple[list[str], list[str]]:
    """Returns the columns and paths of a CSV file; none if it cannot be read, which its source reports."""
    try:
        check_regular(table)
        with table.open(encoding="utf-8-sig", newline="") as lines:
            reader = csv.DictReader(lines)
            paths = [(row.get("path") or "").strip() for row in reader]
            return [*(reader.fieldnames or ())], paths
    except (OSError, UnicodeDecodeError, csv.Error):
        return [], []


def describe_labels(
    path: Path, classes: Sequence[str] | None = None, separator: str | None = None
) -> tuple[PartSpec, Path]:
    """Returns the source and the root of images that may have several labels.

    Args:
        path: a CSV file with columns `path`, and `label` with the separator between an image's labels, or a
            column of 0 and 1 for each class; and, where it has splits or groups, `split` and `group`.
        classes: the classes, where they are known; None: every other column is one.
        separator: what is between an image's labels in the column `label`; ``|`` unless given.

    Raises:
        DataError: it is no CSV file, it has a column that is no class, or the images are on several drives.
    """
    if path.suffix.lower() != ".csv":
        raise DataError(
            f"{path}: images that may have several labels take a CSV file with columns path and label, with "
            f"{SEPARATOR!r} between the labels of an image, or a column of 0 and 1 for each class"
        )
    try:
        check_regular(path)
        with path.open(encoding="utf-8-sig", newline="") as file:
            header = next(csv.reader(file), [])
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} cannot be read as a CSV file in UTF-8: {error}") from error
    if classes is None:
        classes = [name for name in dict.fromkeys(header) if name not in NOT_CLASSES]
        if "label" not in header:
            _check_class_columns(path, classes)
    form: dict[str, object] = {"label_columns": list(classes)}
    if separator is not None or "label" in header or not classes or not set(classes) <= set(header):
        form = {"separator": SEPARATOR if separator is None else separator}
    part, root = describe_source(path)
    return PartSpec(name=part.name, options={**part.options, **form}), root


def _check_class_columns(table: Path, columns: Sequence[str]) -> None:
    """Raises if a column that would be a class is a well-known one of another meaning."""
    for column in columns:
        if hint := NO_CLASSES.get(column.casefold()):
            raise DataError(
                f"{table}: without a column label, every column but path, split and group is a class, and "
                f"{column!r} seems to be none: {hint}"
            )


def images_with_labels(
    path: Path, classes: Sequence[str], separator: str | None = None
) -> tuple[list[Path], list[str]]:
    """Finds images that may have several labels; if there is a test split, only its images.

    Args:
        path: a CSV file; see `describe_labels`.
        classes: the classes that there are.
        separator: what is between an image's labels in the column `label`; ``|`` unless given.

    Returns:
        The images, and the labels of each in one string.

    Raises:
        DataError: the file has another form.
    """
    part, root = describe_labels(path, classes, separator)
    source: Source = load_registry().make("source", part.name, part.options, root)
    chosen = _test_images(source, path)
    labels = [join_labels(source.classes[index] for index in sample.class_indices) for sample in chosen]
    return [sample.path for sample in chosen], labels


def labelled_images(path: Path, registry: Registry | None = None) -> tuple[list[Path], list[str]]:
    """Finds labelled images and their class names; if there is a test split, only its images.

    Args:
        path: a folder with a folder per class, with or without train, val and test above them; or a CSV
            file with columns `path` and `label`.
        registry: the parts to choose from; all that is installed unless given.

    Raises:
        DataError: there are no labelled images, or the folder or file has another form.
    """
    registry = registry or load_registry()
    part, root = describe_source(path)
    source: Source = registry.make("source", part.name, part.options, root)
    chosen = _test_images(source, path)
    labels = [source.classes[sample.label] for sample in chosen if sample.label is not None]
    return [sample.path for sample in chosen], labels


def _test_images(source: Source, path: Path) -> list[Sample]:
    """Returns the test images, or all where there is no test split."""
    splits = {sample.split for sample in source.samples}
    chosen = [sample for sample in source.samples if sample.split == "test" or "test" not in splits]
    if not chosen:
        raise DataError(f"{path} holds no labelled images")
    return chosen
