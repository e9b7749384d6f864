"""Divides images so that copies of one photo, and images of one group, are in the same split."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tlkit.analysis.audit_file import Audit, CopyGroup
from tlkit.analysis.features import LabelledImages, read_labelled
from tlkit.analysis.targets import recipe_for
from tlkit.data.images import Image
from tlkit.data.splits import PRECEDENCE, draw_splits
from tlkit.errors import DataError, ReportError
from tlkit.experiment.observer import Observer
from tlkit.parts.source import SPLITS, SplitName
from tlkit.plugins.loader import load_registry
from tlkit.plugins.registry import Registry
from tlkit.utils.atomic_write import atomic_write
from tlkit.utils.csv_cells import write_rows


@dataclass(frozen=True)
class FixedSplits:
    """What `fix_splits` has written.

    Attributes:
        counts: number of images in each split.
        moved: ids of images that had another split before.
        two_labels: groups of copies with several labels: they are in one split, with the labels they have.
    """

    counts: dict[SplitName, int]
    moved: tuple[str, ...]
    two_labels: tuple[CopyGroup, ...]


def fix_splits(
    audit: Audit,
    path: Path | str,
    *,
    seed: int = 1,
    observer: Observer | None = None,
    registry: Registry | None = None,
) -> FixedSplits:
    """Writes a CSV file for ``data.splits`` that keeps copies of a photo, and images of a group, together.

    Test images of the source, or of the recipe's file of splits, stay test images, and validation images stay
    validation images; their copies join them, since what a classifier is tested on must not be trained on.
    Splits that are missing are drawn, by class.

    Args:
        audit: what `tlkit.audit` has found; its target is read again.
        path: the file, which is replaced if it exists.
        seed: of the draw.
        observer: is shown the progress.
        registry: the parts to choose from; all that is installed unless given.

    Raises:
        DataError: a class has too few images that differ to be in each split, or a copy has changed since the
            audit.
        ReportError: the file cannot be written.
    """
    labelled = read_labelled(recipe_for(audit.target), registry or load_registry(), observer or Observer())
    _check_unchanged(audit, labelled)
    before = _splits_before(labelled)
    grouped = _group(labelled.images, before, _join(labelled, audit.groups))
    fractions = labelled.data.fractions.model_dump()
    drawn = draw_splits(grouped, labelled.classes, seed=seed, per_class=None, fractions=fractions)
    split_of = {image.sample.id: split for split in SPLITS for image in getattr(drawn, split)}
    rows = [(image.sample.id, split_of[image.sample.id]) for image in labelled.images]
    try:
        with (
            atomic_write(Path(path)) as temporary,
            temporary.open("w", newline="", encoding="utf-8") as file,
        ):
            write_rows(file, [("image", "split"), *rows])
    except OSError as error:
        raise ReportError(f"{path} cannot be written: {error.strerror or error}") from error
    counts = Counter(split for _, split in rows)
    moved = [image for (image, split), old in zip(rows, before, strict=True) if _has_moved(old, split)]
    two_labels = tuple(group for group in audit.groups if group.across_labels)
    return FixedSplits({split: counts[split] for split in SPLITS}, tuple(moved), two_labels)


def _check_unchanged(audit: Audit, labelled: LabelledImages) -> None:
    """Raises unless all copies are still the images that were audited."""
    hashes = {image.sample.id: image.sha256 for image in labelled.images}
    for image in (image for group in audit.groups for image in group.images):
        if hashes.get(image) != audit.images[image].sha256:
            raise DataError(f"{image} has changed since the audit of {audit.target}: audit it again")


def _splits_before(labelled: LabelledImages) -> Sequence[SplitName | None]:
    """Returns the splits that are kept: those of the recipe's file, or else the source's own."""
    if labelled.data.splits is None:
        return [image.sample.split for image in labelled.images]
    # an image that the file does not list may be trained on, unless it is a copy of another
    return [split or "train" for split in labelled.splits]


def _has_moved(before: SplitName | None, after: SplitName) -> bool:
    # where the source has no validation images, they are drawn from its training images
    return before is not None and before != after and (before, after) != ("train", "val")


def _join(labelled: LabelledImages, copies: Sequence[CopyGroup]) -> NDArray[np.int64]:
    """Returns a number for each image, ``(N,)``, that is the same for copies and for images of one group."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    row_of = {image.sample.id: row for row, image in enumerate(labelled.images)}
    links = [(row_of[group.images[0]], row_of[image]) for group in copies for image in group.images]
    _, first = np.unique(labelled.groups, return_index=True)
    links += zip(first[labelled.groups].tolist(), range(len(row_of)), strict=True)
    graph = coo_array((np.ones(len(links)), np.array(links).T), shape=(len(row_of), len(row_of)))
    numbers: NDArray[np.int64] = connected_components(graph, directed=False)[1]
    return numbers


def _group(
    images: Sequence[Image], splits: Sequence[SplitName | None], numbers: NDArray[np.int64]
) -> list[Image]:
    """Returns images as `draw_splits` keeps them together: with one hash, label and split for each number."""
    members: dict[int, list[int]] = {}
    for row, number in enumerate(numbers.tolist()):
        members.setdefault(number, []).append(row)
    grouped = []
    for number, rows in members.items():
        # a photo that belongs to no other keeps its hash, which the draw depends on
        name = images[rows[0]].sha256 if len(rows) == 1 else f"group {number}"
        label = Counter(images[row].sample.label for row in rows).most_common(1)[0][0]
        split = max((splits[row] for row in rows), key=PRECEDENCE.index)
        for row in rows:
            sample = replace(images[row].sample, label=label, split=split)
            grouped.append(replace(images[row], sample=sample, sha256=name))
    return grouped
