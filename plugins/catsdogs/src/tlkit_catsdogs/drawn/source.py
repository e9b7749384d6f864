"""The drawn world as a source: it makes its images itself, so it needs no download."""

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
    """Animals drawn from a seed, 160 pixels wide and high: a small world that needs no download.

    Args:
        root: where the images are kept; in tlkit's cache folder unless given.
        setting: "studio": 28 kinds of animal, one to a picture, for pretraining; "street": cats and
            dogs only, some of kinds that the studio lacks, under harder conditions.
        seed: of the world; image N of a seed is always the same.
        per_class: how many images of each class.
        without_label: how many images without a label.
    """
    from tlkit_catsdogs.drawn.world import SETTINGS

    classes = SETTINGS[setting].classes
    # what is drawn may change with this code and the libraries that draw; old images are then left alone
    folder = (root or generated_folder() / "drawn") / f"{setting}-{seed}-{_drawing()[:10]}"
    labelled = per_class * len(classes)

    def sample(number: int) -> Sample:
        label = number % len(classes) if number < labelled else None
        kind = "unlabelled" if label is None else classes[label]
        name = f"{kind}/{number:06d}.jpg"
        return Sample(name, folder / name, label)

    samples = [sample(number) for number in range(labelled + without_label)]
    make = partial(_make, setting, seed)
    return Source(classes, samples[:labelled], samples[labelled:], make=make, about=ABOUT)


def _make(setting: str, seed: int, sample: Sample) -> bytes:
    from tlkit_catsdogs.drawn.world import draw

    return draw(setting, seed, int(sample.path.stem))


@cache
def _drawing() -> str:
    """Of all that decides what is drawn: this package's code, and the libraries it draws with."""
    code = [path.read_bytes() for path in sorted(Path(__file__).parent.glob("*.py"))]
    parts = (code, version("opencv-python-headless"), version("numpy"))
    return hashlib.sha256(repr(parts).encode()).hexdigest()
