"""The images that everybody works on, as a folder per part and class."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from tlkit_catsdogs.drawn.world import draw

from tlkit.errors import DataError
from tlkit.plugins.loader import load_registry

CLASSES = ("cat", "dog")


def lay_out(folder: Path, counts: Mapping[str, int], data: Path | None) -> None:
    """Fills ``<folder>/<part>/<class>`` with that many images of each class.

    Args:
        folder: where.
        counts: images of each class, by part.
        data: photos, a folder per class or in Kaggle's flat layout; drawn animals unless given.

    Raises:
        DataError: there are too few photos.
    """
    wanted = sum(counts.values())
    photos = _photos(data, wanted) if data else None
    for label, name in enumerate(CLASSES):
        places = iter(range(wanted))
        for part, count in counts.items():
            target = folder / part / name
            target.mkdir(parents=True)
            for place in (next(places) for _ in range(count)):
                file = target / f"{place:05}.jpg"
                if photos:
                    file.symlink_to(photos[label][place].resolve())
                else:  # the drawn world's cats and dogs take turns
                    file.write_bytes(draw("street", 1, 2 * place + label))


def _photos(data: Path, wanted: int) -> list[list[Path]]:
    flat = any(data.glob("cat.*.jpg"))
    source = load_registry().make("source", "catsdogs" if flat else "folder", {}, data)
    found = [[sample.path for sample in source.samples if sample.label == label] for label in (0, 1)]
    if any(len(paths) < wanted for paths in found):
        raise DataError(f"{data} has {len(found[0])} and {len(found[1])} photos; {wanted} of each are needed")
    return found
