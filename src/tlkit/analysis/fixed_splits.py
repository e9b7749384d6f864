"""Divides images so that copies of one photo are in the same split."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tlkit.analysis.audit_file import CopyGroup
from tlkit.analysis.duplicates import Copies
from tlkit.analysis.features import LabelledImages
from tlkit.data.images import Image
from tlkit.data.splits import PRECEDENCE, draw_splits
from tlkit.errors import ReportError
from tlkit.parts.source import SPLITS, SplitName
from tlkit.utils.atomic_write import atomic_write
from tlkit.utils.csv_cells import write_rows


@dataclass(frozen=True)
class FixedSplits:
    """What `write_fixed_splits` has written.

    Attributes:
        counts: number of images in each split.
        moved: ids of images that had another split before.
        two_labels: groups of copies with several labels: they are in one split, with the labels they have.
    """

    counts: dict[SplitName, int]
    moved: tuple[str, ...]
    two_labels: tuple[CopyGroup, ...]


def write_fixed_splits(path: Path, labelled: LabelledImages, copies: Copies, seed: int) -> FixedSplits:
    """Writes a CSV file for ``data.splits`` in which all copies of a photo are in the same split.

    Test images of the source, or of the recipe's file of splits, stay test images, and validation images stay
    validation images; their copies join them, since what a classifier is tested on must not be trained on.
    Splits that are missing are drawn, by class.

    Args:
        path: the file, which is replaced if it exists.
        labelled: the images.
        copies: what they have in common, from `find_copies`.
        seed: of the draw.

    Raises:
        DataError: a class has too few images that differ to be in each split.
        ReportError: the file cannot be written.
    """
    before = _splits_before(labelled)
    grouped = _group(labelled.images, before, copies.groups)
    fractions = labelled.data.fractions.model_dump()
    drawn = draw_splits(grouped, labelled.classes, seed=seed, per_class=None, fractions=fractions)
    split_of = {image.sample.id: split for split in SPLITS for image in getattr(drawn, split)}
    rows = [(image.sample.id, split_of[image.sample.id]) for image in labelled.images]
    try:
        with (
            atomic_write(path) as temporary,
            temporary.open("w", newline="", encoding="utf-8") as file,
        ):
            write_rows(file, [("image", "split"), *rows])
    except OSError as error:
        raise ReportError(f"{path} cannot be written: {error.strerror or error}") from error
    counts = Counter(split for _, split in rows)
    moved = [image for (image, split), old in zip(rows, before, strict=True) if _has_moved(old, split)]
    two_labels = tuple(group for group in copies.groups if group.across_labels)
    return FixedSplits({split: counts[split] for split in SPLITS}, tuple(moved), two_labels)


def _splits_before(labelled: LabelledImages) -> Sequence[SplitName | None]:
    """Returns the splits that are kept: those of the recipe's file, or else the source's own."""
    if labelled.data.splits is None:
        return [image.sample.split for image in labelled.images]
    # an image that the file does not list may be trained on, unless it is a copy of another
    return [split or "train" for split in labelled.splits]


def _has_moved(before: SplitName | None, after: SplitName) -> bool:
    # where the source has no validation images, they are drawn from its training images
    return before is not None and before != after and (before, after) != ("train", "val")


def _group(
    images: Sequence[Image], splits: Sequence[SplitName | None], groups: Sequence[CopyGroup]
) -> list[Image]:
    """Returns images as `draw_splits` keeps them together: copies share a hash, a label and a split."""
    group_of = {image: number for number, group in enumerate(groups) for image in group.images}
    members: dict[str, list[int]] = {}
    for index, image in enumerate(images):
        number = group_of.get(image.sample.id)
        members.setdefault(image.sha256 if number is None else f"group {number}", []).append(index)
    grouped = []
    for name, rows in members.items():
        label = Counter(images[row].sample.label for row in rows).most_common(1)[0][0]
        split = max((splits[row] for row in rows), key=PRECEDENCE.index)
        for row in rows:
            sample = replace(images[row].sample, label=label, split=split)
            grouped.append(replace(images[row], sample=sample, sha256=name))
    return grouped
