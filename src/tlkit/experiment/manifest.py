"""Writes a manifest: the images of a recipe with their labels, splits and hashes, in Parquet."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tlkit.data.dataset import Dataset
from tlkit.data.image_index import FileIdentity
from tlkit.data.images import Image
from tlkit.errors import DataError, RecipeError
from tlkit.experiment.observer import Observer
from tlkit.experiment.sources import make_source, read_images
from tlkit.experiment.validation import source_problems
from tlkit.parts.manifest import CLASSES_KEY
from tlkit.parts.source import SPLITS, Source, SplitName
from tlkit.plugins.loader import load_registry
from tlkit.plugins.registry import Registry
from tlkit.recipe.recipe import Recipe, as_recipe
from tlkit.utils.atomic_write import atomic_write

#: How the name of a manifest ends.
SUFFIX = ".parquet"


@dataclass(frozen=True)
class Manifest:
    """A manifest that was written.

    Attributes:
        file: the file.
        root: the folder that its paths are relative to: the recipe key ``data.root`` of what reads it.
        images: number of images in it.
    """

    file: Path
    root: Path
    images: int


def manifest(
    recipe: Recipe | Path | str,
    *,
    out: Path | str = "manifest.parquet",
    overrides: Mapping[str, Any] | Sequence[str] = (),
    observer: Observer | None = None,
    registry: Registry | None = None,
) -> Manifest:
    """Lists the images that a run of a recipe uses, with their labels, splits and hashes, in a Parquet file.

    The source ``parquet`` reads it. Images that the run leaves out are not in it. Where images may have
    several labels, the column of labels has lists.

    Args:
        recipe: a recipe, its file, or a folder that holds ``recipe.toml``.
        out: the file to write.
        overrides: keys to set in a recipe that is read from a file, as for `tlkit.run`.
        observer: is shown progress.
        registry: the parts to choose from; all that is installed unless given.

    Raises:
        DataError: pyarrow is missing, the images cannot be used, or the file cannot be written.
        RecipeError: the recipe cannot be run as it is.
    """
    if find_spec("pyarrow") is None:
        raise DataError("manifests need pyarrow: pip install 'tlkit[parquet]'")
    if (file := Path(out)).suffix != SUFFIX:
        raise DataError(f"{file}: manifests are written in Parquet: give it a name that ends in {SUFFIX}")
    recipe, registry = as_recipe(recipe, overrides), registry or load_registry()
    if problems := [*recipe.flaws, *source_problems(recipe, registry)]:
        raise RecipeError(problems, recipe=recipe.label)
    assert recipe.data is not None  # a recipe without flaws has it
    began = time.time_ns()
    source = make_source(recipe.data, registry, recipe.task)
    if source.make and (root := recipe.data.root):
        _check_files(source, root, recipe.data.source.name)
    dataset = read_images(source, recipe, observer or Observer())
    images = list(_images(dataset))
    paths = [image.sample.path for _, image in images]
    root = recipe.data.root or Path(os.path.commonpath([path.parent for path in paths]))
    if outside := next((path for path in paths if not path.is_relative_to(root)), None):
        raise DataError(
            f"{outside} is not below {root}, so a manifest cannot name it: set data.root to a folder above"
        )
    try:
        with atomic_write(file) as temporary:
            _write(temporary, images, dataset, root, began)
    except OSError as error:
        raise DataError(f"{file} cannot be written: {error.strerror or error}") from error
    return Manifest(file, root, len(paths))


def _check_files(source: Source, root: Path, name: str) -> None:
    """Raises DataError where a source makes images outside of the root, before they are made."""
    if not all(sample.path.is_relative_to(root) for sample in source.samples):
        raise DataError(
            f"the source {name!r} has no image files in {root} that a manifest could list: recipes are to "
            "name this source itself, also for tlkit features --shard"
        )


def _images(dataset: Dataset) -> Iterator[tuple[SplitName | None, Image]]:
    """Yields the images of a run with their splits; those without a label have none."""
    for split in SPLITS:
        yield from ((split, image) for image in getattr(dataset.splits, split))
    yield from ((None, image) for image in dataset.unlabelled)


def _write(
    file: Path,
    images: Sequence[tuple[SplitName | None, Image]],
    dataset: Dataset,
    root: Path,
    began: int,
) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    # a file that was changed since, or shortly before, may not be the one that was hashed
    identities = [
        identity if identity is not None and identity.is_settled(began) else None
        for identity in (FileIdentity.of(image.sample.path) for _, image in images)
    ]
    mtimes = [identity and identity.mtime for identity in identities]
    classes = dataset.classes
    labels = [
        [classes[index] for index in image.sample.class_indices] if image.sample.is_labelled else None
        for _, image in images
    ]
    if dataset.task == "multilabel":
        label_column = pa.array(labels, pa.list_(pa.string()))
    else:
        label_column = pa.array([names and names[0] for names in labels], pa.string())
    columns = {
        "id": pa.array([image.sample.id for _, image in images]),
        "path": pa.array([image.sample.path.relative_to(root).as_posix() for _, image in images]),
        "size": pa.array([identity and identity.size for identity in identities], pa.int64()),
        "mtime": pa.array(mtimes, pa.timestamp("ns", "UTC")),
        "sha256": pa.array([image.sha256 for _, image in images]),
        "width": pa.array([image.width for _, image in images], pa.int32()),
        "height": pa.array([image.height for _, image in images], pa.int32()),
        "label": label_column,
        "split": pa.array([split for split, _ in images], pa.string()),
        "group": pa.array([image.sample.group for _, image in images], pa.string()),
    }
    table = pa.table(columns).replace_schema_metadata({CLASSES_KEY: json.dumps(classes)})
    parquet.write_table(table, file, compression="zstd")
