"""Makes the source of a recipe; it does not load torch."""

from __future__ import annotations

from tlkit.errors import DataError
from tlkit.parts.source import Source
from tlkit.parts.task import Task
from tlkit.plugins.registry import Registry
from tlkit.recipe.schema import DataSpec
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
