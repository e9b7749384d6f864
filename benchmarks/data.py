"""The images of all contenders, in a folder per split and class."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from tlkit_catsdogs.drawn.world import draw

from tlkit import DataError, load_registry

CLASSES = ("cat", "dog")


def lay_out(folder: Path, counts: Mapping[str, int], data: Path | None) -> None:
    """Fills ``<folder>/<split>/<class>`` with that many images of each class.

    Args:
        folder: the folder to fill.
        counts: number of images of each class, by split.
        data: photos, in a folder per class or in Kaggle's flat layout; drawn animals unless given.

    Raises:
        DataError: there are too few photos.
    """
    per_class = sum(counts.values())
    photos = _photos(data, per_class) if data else None
    for label, name in enumerate(CLASSES):
        numbers = iter(range(per_class))
        for split, count in counts.items():
            target = folder / split / name
            target.mkdir(parents=True)
            for number in (next(numbers) for _ in range(count)):
                file = target / f"{number:05}.jpg"
                if photos:
                    file.symlink_to(photos[label][number].resolve())
                else:  # the drawn world's cats and dogs take turns
                    file.write_bytes(draw("street", 1, 2 * number + label))


def _photos(data: Path, per_class: int) -> list[list[Path]]:
    flat = any(data.glob("cat.*.jpg"))
    source = load_registry().make("source", "catsdogs" if flat else "folder", {}, data)
    cats, dogs = ([sample.path for sample in source.samples if sample.label == label] for label in (0, 1))
    if min(len(cats), len(dogs)) < per_class:
        raise DataError(f"{data} has {len(cats)} and {len(dogs)} photos; {per_class} of each are needed")
    return [cats, dogs]
