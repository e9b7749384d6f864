"""From a source to images that are known to be sound, divided into splits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tlkit.components import Source
from tlkit.data.batches import threads
from tlkit.data.images import Image, inspect
from tlkit.data.splits import Splits, draw
from tlkit.errors import DataError
from tlkit.recipe_tables import Data

#: How many rejected images an error names.
NAMED = 20


@dataclass(frozen=True)
class Found:
    """All images of a run.

    Attributes:
        splits: the labelled ones.
        unlabelled: those without a label.
        rejected: (id, reason) of each that is left out.
    """

    splits: Splits
    unlabelled: tuple[Image, ...]
    rejected: tuple[tuple[str, str], ...]


def read_images(source: Source, data: Data, seed: int, tick: Callable[[int], object]) -> Found:
    """Reads every image once, and draws the splits from those that are sound.

    Raises:
        DataError: an image cannot be used and the recipe says to stop, or there are too few.
    """
    images, rejected = inspect([*source.samples, *source.unlabelled], threads=threads(), tick=tick)
    if data.on_unreadable == "stop":
        _stop(data, rejected)
    splits = draw(
        [image for image in images if image.sample.label is not None],
        source.classes,
        seed=seed,
        per_class=data.per_class.model_dump() if data.per_class else None,
        fractions=data.fractions.model_dump(),
    )
    if data.on_unreadable == "stop":
        _stop(data, splits.rejected)
    unlabelled = tuple(image for image in images if image.sample.label is None)
    return Found(splits, unlabelled, (*rejected, *splits.rejected))


def _stop(data: Data, rejected: Sequence[tuple[str, str]]) -> None:
    """Raises if anything was rejected."""
    if not rejected:
        return
    lines = [f"  - {name}: {reason}" for name, reason in rejected[:NAMED]]
    if len(rejected) > NAMED:
        lines.append(f"  - and {len(rejected) - NAMED} more")
    count = "1 image" if len(rejected) == 1 else f"{len(rejected)} images"
    advice = "Mend or remove them, or leave them out with --set data.on_unreadable=skip"
    raise DataError("\n".join([f"{data.root or data.source.name}: {count} cannot be used", *lines, advice]))
