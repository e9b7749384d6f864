"""How many planted copies `find_copies` finds, and what else it reports.

    python -m benchmarks.duplicates ../shared/datasets/waste local-dir:../shared/weights/mobilenetv2_100

Each kind of copy is planted for different photos, drawn at random. What is reported beyond planted copies,
between two photos or between a photo and a copy of another one, is listed, to be looked at.
"""

from __future__ import annotations

import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from PIL import Image, ImageEnhance, ImageOps

from tlkit import Observer, load_registry
from tlkit.analysis import neighbours
from tlkit.analysis.duplicates import NEIGHBOURS, find_copies
from tlkit.analysis.features import compute_features, read_labelled
from tlkit.analysis.targets import recipe_for
from tlkit.data.images import read_image

Change = Callable[[Image.Image, np.random.Generator], Image.Image]


def crop(image: Image.Image, generator: np.random.Generator, least: float) -> Image.Image:
    """Cuts each side to a fraction of at least `least`."""
    kept = generator.uniform(least, 0.95, size=2)
    width, height = (round(side * part) for side, part in zip(image.size, kept, strict=True))
    left, top = generator.integers(image.width - width + 1), generator.integers(image.height - height + 1)
    return image.crop((left, top, left + width, top + height))


def resize(image: Image.Image, factor: float) -> Image.Image:
    """Makes an image smaller."""
    return image.resize((max(32, round(image.width * factor)), max(32, round(image.height * factor))))


def brighten(image: Image.Image, generator: np.random.Generator) -> Image.Image:
    """Changes brightness and contrast."""
    brighter = ImageEnhance.Brightness(image).enhance(generator.uniform(0.75, 1.3))
    return ImageEnhance.Contrast(brighter).enhance(generator.uniform(0.8, 1.2))


#: What is done to a copy, before it is encoded again.
CHANGES: dict[str, Change] = {
    "re-encoded": lambda image, _: image,
    "resized": lambda image, generator: resize(image, generator.uniform(0.3, 0.8)),
    "mirrored": lambda image, _: ImageOps.mirror(image),
    "cropped by up to 20%": lambda image, generator: crop(image, generator, 0.8),
    "cropped by up to 30%": lambda image, generator: crop(image, generator, 0.7),
    "brightened or darkened": brighten,
    "cropped, mirrored": lambda image, generator: ImageOps.mirror(crop(image, generator, 0.8)),
    "all of these": lambda image, generator: resize(
        brighten(ImageOps.mirror(crop(image, generator, 0.85)), generator), 0.5
    ),
}


def plant(source: Path, folder: Path, each: int, generator: np.random.Generator) -> dict[frozenset[str], str]:
    """Lays out all photos, and copies of some; returns the kind of each planted pair."""
    photos = sorted(path for path in source.glob("*/*/*") if path.is_file())
    for photo in photos:
        target = folder / photo.relative_to(source)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.symlink_to(photo.resolve())
    planted = {}
    chosen = generator.permutation(len(photos))[: each * len(CHANGES)]
    for number, index in enumerate(chosen):
        kind = list(CHANGES)[number % len(CHANGES)]
        original = photos[index].relative_to(source)
        copy = original.with_name(f"copy-{number}.jpg")
        changed = CHANGES[kind](read_image(photos[index]), generator)
        changed.save(folder / copy, quality=int(generator.integers(40, 95)))
        planted[frozenset({original.as_posix(), copy.as_posix()})] = kind
    return planted


def main(
    source: Path,
    backbone: str,
    each: Annotated[int, typer.Option(help="Copies of each kind.")] = 40,
    seed: int = 0,
    index: Annotated[bool, typer.Option(help="Seek neighbours as among many images.")] = False,
) -> None:
    """Print recall by kind, and the pairs that were not planted."""
    registry = load_registry()
    if index:
        neighbours.MAX_EXACT = 0
    with tempfile.TemporaryDirectory() as root:
        planted = plant(source, Path(root), each, np.random.default_rng(seed))
        labelled = read_labelled(recipe_for(Path(root)), registry, Observer())
        features = compute_features(labelled, backbone=backbone, registry=registry)
        wall, cpu = time.perf_counter(), time.process_time()
        copies = find_copies(features, neighbours.nearest(features.mean, NEIGHBOURS), Observer())
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    # of equal files, the first one stands for the others
    first = {other: image for image, other in (pair.images for pair in copies.pairs if pair.kind == "equal")}
    planted = {frozenset(first.get(image, image) for image in pair): kind for pair, kind in planted.items()}
    pairs = {frozenset(pair.images): pair for pair in copies.pairs}
    counts = Counter(planted.values())
    recalled = Counter(kind for pair, kind in planted.items() if pair in pairs)
    for kind in CHANGES:
        typer.echo(f"{kind}: {recalled[kind]} of {counts[kind]}")
    typer.echo(f"all: {sum(recalled.values()) / len(planted):.4f}; {wall:.1f} s, {cpu:.1f} s of CPU")
    others = [pair for images, pair in pairs.items() if images not in planted]
    typer.echo(f"{len(pairs)} pairs, of which {len(others)} were not planted:")
    for pair in others:
        typer.echo(f"  {pair.correlation:.3f} {' '.join(pair.images)}{' mirrored' if pair.mirrored else ''}")


if __name__ == "__main__":
    typer.run(main)
