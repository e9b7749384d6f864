"""Reads all images of a source once and divides them into splits."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from tlkit.data.corrections import LabelChange, apply_corrections
from tlkit.data.corrections_file import read_corrections
from tlkit.data.folds import ALWAYS_TRAINED, Folds, draw_folds
from tlkit.data.images import Image
from tlkit.data.inspection import inspect_images
from tlkit.data.split_file import assign_splits, read_split_file
from tlkit.data.splits import Splits, class_matrix, draw_splits
from tlkit.errors import DataError
from tlkit.parts.source import SPLITS, Sample, Source, SplitName
from tlkit.parts.task import SEPARATOR, Task
from tlkit.recipe.schema import DataSpec
from tlkit.runtime.processors import reader_threads
from tlkit.utils.formatting import bulleted, plural, printable

#: Features of this many training images are stored with a model, to tell which images are unknown.
MAX_REPRESENTATIVES = 2000


class _Hashed(Protocol):
    @property
    def sha256(self) -> str: ...


HashedImage = TypeVar("HashedImage", bound=_Hashed)


@dataclass(frozen=True)
class Dataset:
    """All images of a run.

    Attributes:
        classes: class names; a label is an index into them.
        splits: the labelled images.
        unlabelled: the images without a label.
        rejected: (id, reason) of each image that is left out.
        about: a sentence about the images that every reader of the results should know, or nothing.
        corrections: a sentence about what corrected the labels, or nothing.
        corrected: the labels that were changed.
        folds: of the training images, for cross-validation; None: there are validation images instead.
        task: whether an image has one label or several.
    """

    classes: tuple[str, ...]
    splits: Splits
    unlabelled: tuple[Image, ...]
    rejected: tuple[tuple[str, str], ...]
    about: str
    corrections: str = ""
    corrected: tuple[LabelChange, ...] = ()
    folds: Folds | None = None
    task: Task = "multiclass"

    def labels_of(self, images: Sequence[Image]) -> NDArray[np.int64]:
        """Returns labels, ``(N,)``; with several per image, 0 or 1 for each class, ``(N, classes)``."""
        if self.task == "multilabel":
            return class_matrix(images, len(self.classes)).astype(np.int64)
        return np.array([image.sample.label for image in images], np.int64)

    def count_classes(self, images: Sequence[Image]) -> list[int]:
        """Returns how many of these images have each class."""
        indices = chain.from_iterable(image.sample.class_indices for image in images)
        counts: list[int] = np.bincount(np.fromiter(indices, np.int64), minlength=len(self.classes)).tolist()
        return counts

    @property
    def measured(self) -> tuple[Image, ...]:
        """The images that phases are measured on: those for testing, or else those that folds hold out."""
        if self.splits.test or self.folds is None:
            return self.splits.test
        held_out = np.flatnonzero(self.folds.assignment[0] != ALWAYS_TRAINED)
        return tuple(self.splits.train[index] for index in held_out)

    @cached_property
    def representatives(self) -> tuple[Image, ...]:
        """Training images with different bytes: all, or `MAX_REPRESENTATIVES` at random."""
        train = self.splits.train
        representatives = choose_representatives(train)
        return train if len(representatives) == len(train) else representatives


def choose_representatives(train: Sequence[HashedImage]) -> tuple[HashedImage, ...]:
    """Returns those with different bytes: all, or `MAX_REPRESENTATIVES` at random, the same each time.

    Args:
        train: training images, or their rows of splits.csv, in its order.
    """
    different = tuple({image.sha256: image for image in train}.values())
    if len(different) <= MAX_REPRESENTATIVES:
        return different
    order = np.random.default_rng(0).permutation(len(different))
    return tuple(different[index] for index in sorted(order[:MAX_REPRESENTATIVES]))


def read_dataset(
    source: Source,
    data: DataSpec,
    seed: int,
    tick: Callable[[int], object],
    task: Task = "multiclass",
) -> Dataset:
    """Reads every image once, corrects labels, and draws the splits from those that can be used.

    Raises:
        AuditFileError: the recipe's corrections cannot be read, or are not of these images.
        DataError: an image cannot be used and the recipe says to stop, a class has a name that files cannot
            hold, or there are too few images.
    """
    if unusable := [printable(name) for name in source.classes if printable(name) != name]:
        hint, encoding = "", sys.getfilesystemencoding()
        if encoding != "utf-8":
            hint = f", or set PYTHONUTF8=1: Python reads names as {encoding} here"
        head = f"names of classes must be UTF-8, without control characters: rename{hint}"
        raise DataError(bulleted(head, unusable))
    if task == "multilabel" and (joined := [name for name in source.classes if SEPARATOR in name]):
        head = f"names of classes must not have {SEPARATOR!r} in them, which is between an image's labels"
        raise DataError(bulleted(head, joined))
    corrections = read_corrections(data.corrections) if data.corrections else None
    assignment = read_assignment(source, data)
    samples = [*source.samples, *source.unlabelled]
    images, rejected = inspect_images(samples, threads=reader_threads(), tick=tick)
    if not images:
        _raise_if_none_exists(data, samples)
    corrected = apply_corrections(corrections, images, rejected, source.classes)
    if data.on_unreadable == "stop":
        _raise_for_rejected(data, corrected.rejected)
    labelled = [image for image in corrected.images if image.sample.is_labelled]
    splits = divide_images(labelled, source.classes, data, seed, assignment)
    if data.on_unreadable == "stop":
        _raise_for_rejected(data, splits.rejected)
    unlabelled = tuple(image for image in images if not image.sample.is_labelled)
    folds = None
    if data.folds is not None:
        folds = draw_folds(
            splits.train,
            source.classes,
            seed=seed,
            folds=data.folds,
            repeats=data.repeats,
            group=data.group,
        )
    return Dataset(
        source.classes,
        splits,
        unlabelled,
        (*corrected.rejected, *corrected.left_out, *splits.rejected),
        source.about,
        corrected.summary,
        corrected.changes,
        folds,
        task,
    )


def read_assignment(source: Source, data: DataSpec) -> dict[str, SplitName] | None:
    """Returns the splits of the recipe's file, by image; None if it names none.

    Raises:
        DataError: the file cannot be read, or names images that do not exist.
    """
    if data.splits is None:
        return None
    return read_split_file(data.splits, {sample.id for sample in source.samples})


def divide_images(
    images: Sequence[Image],
    classes: Sequence[str],
    data: DataSpec,
    seed: int,
    assignment: Mapping[str, SplitName] | None,
) -> Splits:
    """Divides labelled images as the recipe says: by its file of splits, or as `draw_splits` does.

    Raises:
        DataError: no such splits can be had from these images.
    """
    unlisted: list[tuple[str, str]] = []
    if assignment is not None:
        assert data.splits is not None  # the assignment is from there
        images, unlisted = assign_splits(images, assignment, data.splits)
        present = {image.sample.split for image in images}
        if data.folds is None and (missing := [name for name in ("train", "test") if name not in present]):
            raise DataError(
                f"{data.splits}: no image has the split {' or '.join(missing)}: without data.folds, there "
                "must be images to train on and to test on"
            )
    if data.folds is None and assignment is None:
        _check_groups(images)
    splits = draw_splits(
        images,
        classes,
        seed=seed,
        per_class=data.per_class.model_dump() if data.per_class else None,
        fractions=data.fractions.model_dump(),
        cross_validated=data.folds is not None,
    )
    return replace(splits, rejected=tuple(sorted([*splits.rejected, *unlisted])))


def _check_groups(images: Sequence[Image]) -> None:
    """Raises if splits would be drawn from images in groups, which would be in several of them."""
    drawn = {image.sample.split for image in images} != set(SPLITS)
    grouped = next((image.sample for image in images if image.sample.group), None)
    if drawn and grouped is not None:
        raise DataError(
            f"the source has groups, such as {grouped.group!r} of {grouped.id}, which only folds keep "
            "together: set data.folds, or let the source say which images are in train, val and test"
        )


def _raise_if_none_exists(data: DataSpec, samples: Sequence[Sample]) -> None:
    if samples and not any(sample.path.exists() for sample in samples):
        raise DataError(
            f"source {data.source.name!r} lists {plural(len(samples), 'image')}, and none of them exists, "
            f"such as {samples[0].path}: correct data.root, or the paths that are listed"
        )


def _raise_for_rejected(data: DataSpec, rejected: Sequence[tuple[str, str]]) -> None:
    if not rejected:
        return
    head = f"{data.root or data.source.name}: {plural(len(rejected), 'image')} cannot be used"
    reasons = bulleted(head, [f"{name}: {reason}" for name, reason in rejected])
    raise DataError(f"{reasons}\nRepair or remove them, or leave them out with --set data.on_unreadable=skip")
