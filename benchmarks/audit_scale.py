"""What an audit of many images takes after the pass: seconds of CPU for each part, and the process's memory.

    python -m benchmarks.audit_scale 50000

Images are drawn, 64 by 64 pixels, and so are their features: a direction for each class, and noise.
"""

from __future__ import annotations

import io
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, TypeVar, cast

import numpy as np
import typer
from numpy.typing import NDArray
from PIL import Image

from tlkit import Observer, load_registry
from tlkit.analysis import audit
from tlkit.analysis.features import DatasetFeatures, read_labelled
from tlkit.analysis.probe import ProbeFactory
from tlkit.analysis.targets import recipe_for

CLASSES, WIDTH, SIDE = 20, 1280, 64
#: The parts of an audit that are measured, as `tlkit.analysis.audit` calls them.
PARTS = (
    "find_copies",
    "nearest",
    "find_label_errors",
    "find_unlike",
    "find_series",
    "find_shortcuts",
    "lay_out",
)

Result = TypeVar("Result")


def draw(folder: Path, count: int) -> None:
    """Writes photos of random blots, a folder per class."""
    generator = np.random.default_rng(0)
    for name in range(CLASSES):
        (folder / f"class-{name:02}").mkdir()
    for number in range(count):
        blots = Image.fromarray(generator.integers(0, 256, (8, 8, 3), np.uint8))
        content = io.BytesIO()
        blots.resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(content, "JPEG")
        (folder / f"class-{number % CLASSES:02}" / f"{number}.jpg").write_bytes(content.getvalue())


def draw_features(labels: NDArray[np.int64]) -> NDArray[np.float32]:
    """Returns features that are not negative, as the mean of two views behind a ReLU."""
    generator = np.random.default_rng(1)
    directions = generator.standard_normal((CLASSES, WIDTH), np.float32)
    features = generator.standard_normal((len(labels), WIDTH), np.float32)
    for start in range(0, len(labels), 1000):  # no second array of this size
        rows = slice(start, start + 1000)
        features[rows] += 0.3 * directions[labels[rows]]
        features[rows].clip(min=0, out=features[rows])
        # the mean with what stands for the mirror image's
        features[rows] = (features[rows] + np.roll(features[rows], 1, axis=1)) / 2
    return features


def timed(name: str, function: Callable[..., Result]) -> Callable[..., Result]:
    """Returns a function that prints what each call takes, and the memory's peak so far."""

    def call(*arguments: object, **options: object) -> Result:
        cpu = time.process_time()
        result = function(*arguments, **options)
        typer.echo(f"{name}: {time.process_time() - cpu:.1f} s of CPU, peak {peak():.2f} GB")
        return result

    return call


def peak() -> float:
    """Returns the most memory that the process has used, in GB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def main(count: Annotated[int, typer.Argument(help="Number of images.")]) -> None:
    """Print each part's time, and the whole audit's time and memory."""
    with tempfile.TemporaryDirectory() as root:
        draw(Path(root), count)
        labelled = read_labelled(recipe_for(Path(root)), load_registry(), Observer())
        labels = np.array([image.sample.label for image in labelled.images], np.int64)
        mean = draw_features(labels)
        features = DatasetFeatures(labelled, labels, mean, "drawn", None, cast(ProbeFactory, None))
        typer.echo(f"{count:,} images with features: peak {peak():.2f} GB")
        for name in PARTS:
            setattr(audit, name, timed(name, getattr(audit, name)))
        wall, cpu = time.perf_counter(), time.process_time()
        audit.audit_features(features, root, Observer())
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    typer.echo(f"in all: {wall:.1f} s, {cpu:.1f} s of CPU, peak {peak():.2f} GB")


if __name__ == "__main__":
    typer.run(main)
