"""Makes the source of a recipe, and reads its images; it does not load torch."""

from __future__ import annotations

from tlkit.data.dataset import Dataset, read_dataset
from tlkit.data.generate import generate, missing_images
from tlkit.errors import DataError
from tlkit.experiment.observer import Observer
from tlkit.parts.source import Source
from tlkit.parts.task import Task
from tlkit.plugins.registry import Registry
from tlkit.recipe.recipe import Recipe
from tlkit.recipe.schema import DataSpec
from tlkit.runtime.distributed import process_state
from tlkit.runtime.process import without_garbage_collection


def make_source(data: DataSpec, registry: Registry, task: Task = "multiclass") -> Source:
    """Makes the recipe's source, which lists its images without reading them.

    Raises:
        DataError: it gives several labels per image, and the task is one, or the other way round.
    """
    with without_garbage_collection():
        source: Source = registry.make("source", data.source.name, data.source_options(), data.root)
    several = {sample.labels is not None for sample in source.samples}
    if several == {True, False}:
        raise DataError(f"source {data.source.name!r} gives some images one label, and others several")
    if task == "multiclass" and True in several:
        raise DataError('the source gives several labels per image: set task = "multilabel" in the recipe')
    if task == "multilabel" and False in several:
        raise DataError(
            f'source {data.source.name!r} gives one label per image, and task is "multilabel": with the '
            "source 'csv', set its separator or label_columns"
        )
    if len(source.classes) == 1:
        raise DataError(f"source {data.source.name!r} has one class, {source.classes[0]!r}: it takes two")
    return source


def read_images(source: Source, recipe: Recipe, observer: Observer) -> Dataset:
    """Generates a source's images, if it makes them, reads them, and divides them as the recipe says.

    Raises:
        DataError: the images cannot be used.
    """
    assert recipe.data is not None  # it has been checked
    generate_images(source, observer)
    with observer.progress("reading images", len(source), "images") as tick, without_garbage_collection():
        return read_dataset(source, recipe.data, recipe.seed, tick, recipe.task)


def generate_images(source: Source, observer: Observer) -> None:
    """Generates the images of a source that makes them; of several processes, each does its share."""
    state = process_state()
    missing = missing_images(source)[state.process_index :: state.num_processes]
    if missing:
        with observer.progress("making images", len(missing), "images") as tick:
            generate(source, missing, tick)
    state.wait_for_everyone()
