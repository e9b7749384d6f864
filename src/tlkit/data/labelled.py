"""Labelled images outside a recipe: a folder per class, or a CSV file."""

from __future__ import annotations

from pathlib import Path

from tlkit.errors import DataError
from tlkit.parts.source import Source
from tlkit.plugins.loader import load_registry
from tlkit.plugins.registry import Registry


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
    splits = {sample.split for sample in source.samples}
    chosen = [sample for sample in source.samples if sample.split == "test" or "test" not in splits]
    if not chosen:
        raise DataError(f"{path} holds no labelled images")
    labels = [source.classes[sample.label] for sample in chosen if sample.label is not None]
    return [sample.path for sample in chosen], labels
