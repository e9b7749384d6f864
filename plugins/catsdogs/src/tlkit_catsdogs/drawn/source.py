"""The drawn world as a source that generates its images, so it needs no download."""

from __future__ import annotations

import hashlib
from functools import cache, partial
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from tlkit import Sample, Source, generated_folder

ABOUT = "drawn by tlkit-catsdogs, a small world of its own: its numbers are not those of photos"


def drawn(
    root: Path | None = None,
    *,
    setting: Literal["studio", "street"] = "street",
    seed: int = 1,
    per_class: Annotated[int, Field(ge=1)] = 3900,
    without_label: Annotated[int, Field(ge=0)] = 0,
) -> Source:
    """Animals drawn from a seed, 160x160 pixels: a small world that needs no download.

    Args:
        root: the folder to write the images to; one in tlkit's cache folder unless given.
        setting: "studio": 28 kinds of animal, one per image, for pretraining; "street": cats and
            dogs only, some of kinds that the studio lacks, under harder conditions.
        seed: of the world; image N of a seed is always the same.
        per_class: number of images of each class.
        without_label: number of images without a label.
    """
    from tlkit_catsdogs.drawn.world import SETTINGS

    classes = SETTINGS[setting].classes
    # images may change with this code and the libraries that draw; new ones then get a folder of their own
    folder = (root or generated_folder() / "drawn") / f"{setting}-{seed}-{_code_hash()[:10]}"
    labelled = per_class * len(classes)

    def sample(number: int) -> Sample:
        label = number % len(classes) if number < labelled else None
        parent = "unlabelled" if label is None else classes[label]
        name = f"{parent}/{number:06d}.jpg"
        return Sample(name, folder / name, label)

    samples = [sample(number) for number in range(labelled + without_label)]
    make = partial(_make, setting, seed)
    return Source(classes, samples[:labelled], samples[labelled:], make=make, about=ABOUT)


def _make(setting: str, seed: int, sample: Sample) -> bytes:
    from tlkit_catsdogs.drawn.world import draw

    return draw(setting, seed, int(sample.path.stem))


@cache
def _code_hash() -> str:
    """Returns a hash of everything that determines the images: this package's code and its libraries."""
    code = [path.read_bytes() for path in sorted(Path(__file__).parent.glob("*.py"))]
    parts = (code, version("opencv-python-headless"), version("numpy"))
    return hashlib.sha256(repr(parts).encode()).hexdigest()
