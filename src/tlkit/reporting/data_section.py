"""The report's section on the images of a run."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from tlkit.data.corrections import LabelChange
from tlkit.experiment.plan import DataSummary
from tlkit.experiment.record import ImageRow
from tlkit.parts.task import Task
from tlkit.reporting import run_charts
from tlkit.reporting.pictures import Album, Picture
from tlkit.reporting.run_images import RunImages

Item = TypeVar("Item")

#: How many rejected images, and how many corrected labels, are listed.
LISTED = 20
#: How many training images are shown, and of how many classes at most.
SAMPLES = 12
CLASSES = 24


@dataclass(frozen=True)
class DataSection:
    """The images of a run.

    Attributes:
        counts: number of images per split, and of those without a label; empty before the images were split.
        classes: class names.
        sizes: describes the images' sizes; empty without images.
        rejected: (id, reason) of the first images that were left out.
        rejected_count: number of images that were left out.
        corrections: a sentence about what corrected the labels; empty if nothing did.
        corrected: the first labels that were changed.
        corrected_count: number of labels that were changed.
        charts: of splits and sizes.
        samples: training images.
    """

    counts: Mapping[str, int]
    classes: Sequence[str]
    sizes: str
    rejected: Sequence[tuple[str, str]]
    rejected_count: int
    corrections: str
    corrected: Sequence[LabelChange]
    corrected_count: int
    charts: list[Picture]
    samples: list[Picture]


def make_data_section(
    images: Sequence[ImageRow],
    classes: Sequence[str],
    summary: DataSummary | None,
    samples: list[Picture],
    album: Album,
    task: Task = "multiclass",
) -> DataSection:
    """Makes the section from the rows of splits.csv and the summary in results.json."""
    counts = Counter(image.split for image in images)
    sizes = _describe_sizes(images)
    charts = []
    if images:
        alt = "Images: " + ", ".join(f"{count:,} {name}" for name, count in counts.items())
        # an image that has several classes is no part of one bar
        stacked = classes if task == "multiclass" else ()
        draw = partial(run_charts.splits, images=images, classes=stacked)
        charts.append(album.chart("split", alt, draw, caption="Images per split"))
    if len({(image.width, image.height) for image in images}) > 1:
        alt = f"Sizes of the images: {sizes}"
        draw = partial(run_charts.sizes, images=images)
        charts.append(album.chart("sizes", alt, draw, caption=alt))
    rejected = summary.rejected if summary else ()
    corrected = summary.corrected if summary else ()
    return DataSection(
        counts,
        classes,
        sizes,
        rejected[:LISTED],
        len(rejected),
        summary.corrections if summary else "",
        corrected[:LISTED],
        len(corrected),
        charts,
        samples,
    )


def sample_photos(rows: Sequence[ImageRow], images: RunImages, album: Album) -> list[Picture]:
    """Makes pictures of training images: equally many of each class, or one of each of some classes."""
    by_class: dict[str, list[ImageRow]] = defaultdict(list)
    for row in rows:
        if row.split == "train" and row.label is not None:
            by_class[row.label].append(row)
    names = evenly_spaced(list(by_class), CLASSES)
    per_class = max(1, SAMPLES // max(1, len(names)))
    pictures: list[Picture] = []
    for name in names:
        for row in evenly_spaced(by_class[name], per_class):
            file = f"sample-{len(pictures) + 1}"
            if picture := images.photo(row.id, album, file, f"A {name}: {row.id}", name):
                pictures.append(picture)
    return pictures


def evenly_spaced(items: Sequence[Item], count: int) -> list[Item]:
    """Returns `count` of the items at even distances, or all if there are fewer."""
    if len(items) <= count:
        return list(items)
    return [items[index * len(items) // count] for index in range(count)]


def _describe_sizes(images: Sequence[ImageRow]) -> str:
    if not images:
        return ""
    widths, heights = [image.width for image in images], [image.height for image in images]
    if len(set(widths)) == len(set(heights)) == 1:
        return f"all {widths[0]}×{heights[0]} pixels"
    return f"{min(widths)} to {max(widths)} pixels wide and {min(heights)} to {max(heights)} high"
