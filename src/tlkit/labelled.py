"""Labelled images outside a recipe: a folder per class, or a CSV file."""

from __future__ import annotations

from pathlib import Path

from tlkit.errors import DataError
from tlkit.plugins import Registry, load_registry


def labelled_images(path: Path, registry: Registry | None = None) -> tuple[list[Path], list[str]]:
    """Images and their classes' names; where there is a test split, those of it.

    Args:
        path: a folder with a folder per class, with or without train, val and test above them; or a CSV
            file with columns `path` and `label`.
        registry: the parts to choose from; all that is installed unless given.

    Raises:
        DataError: there are no labelled images, or not as they should be.
    """
    registry = registry or load_registry()
    if path.suffix.lower() == ".csv":
        source = registry.make("source", "csv", {"file": path.name}, path.parent)
    else:
        source = registry.make("source", "folder", {}, path)
    splits = {sample.split for sample in source.samples}
    chosen = [sample for sample in source.samples if sample.split == "test" or "test" not in splits]
    if not chosen:
        raise DataError(f"{path} holds no labelled images")
    return [sample.path for sample in chosen], [source.classes[sample.label] for sample in chosen]
