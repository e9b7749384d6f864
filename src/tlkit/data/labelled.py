"""Labelled images outside a recipe: a folder per class, or a CSV file."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from tlkit.errors import DataError
from tlkit.parts.source import Sample, Source
from tlkit.parts.task import SEPARATOR, join_labels
from tlkit.plugins.loader import load_registry
from tlkit.plugins.registry import Registry


def images_with_labels(
    path: Path, classes: Sequence[str], registry: Registry | None = None
) -> tuple[list[Path], list[str]]:
    """Finds images that may have several labels; if there is a test split, only its images.

    Args:
        path: a CSV file with columns `path`, and `label` with ``|`` between an image's labels, or a column of
            0 and 1 for each class; and, where it has splits, `split`.
        classes: the classes that there are.
        registry: the parts to choose from; all that is installed unless given.

    Returns:
        The images, and the labels of each in one string.

    Raises:
        DataError: the file has another form.
    """
    if path.suffix.lower() != ".csv":
        raise DataError(
            f"{path}: images that may have several labels take a CSV file with columns path and label, with "
            f"{SEPARATOR!r} between the labels of an image, or a column of 0 and 1 for each class"
        )
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            header = next(csv.reader(file), [])
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} cannot be read as a CSV file in UTF-8: {error}") from error
    form: dict[str, object] = {"label_columns": list(classes)}
    if "label" in header or not set(classes) <= set(header):
        form = {"separator": SEPARATOR}
    if "split" in header:
        form["split_column"] = "split"
    options = {"file": path.name, **form}
    source: Source = (registry or load_registry()).make("source", "csv", options, path.parent)
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
    source: Source
    if path.suffix.lower() == ".csv":
        source = registry.make("source", "csv", {"file": path.name}, path.parent)
    else:
        source = registry.make("source", "folder", {}, path)
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
