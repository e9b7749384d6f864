"""Divides labelled images into training, validation and test images.

Images with equal bytes always go to the same split, so that no training image is in the test split too. The
draw depends on the seed and on the images, not on their order.
scikit-learn's splitters know neither numbers per class nor images with equal bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from operator import attrgetter
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tlkit.data.stratification import fill_gaps, properties, spread
from tlkit.errors import DataError
from tlkit.parts.source import SPLITS, SplitName
from tlkit.parts.task import join_labels
from tlkit.utils.formatting import bulleted, plural, shortlist

if TYPE_CHECKING:
    from tlkit.data.images import Image

    #: Images with equal bytes and the same label.
    Group = tuple[Image, ...]

#: An image that is in several of the source's own splits stays in the last of these.
PRECEDENCE: tuple[SplitName | None, ...] = (None, "train", "val", "test")
#: How many images an error lists.
IMAGES_SHOWN = 5


@dataclass(frozen=True)
class Splits:
    """Labelled images by split, each split sorted by label and id.

    Attributes:
        train: images to train on.
        val: images to choose the best epoch by.
        test: images to evaluate on.
        rejected: (sample id, reason) of images that are in no split.
    """

    train: tuple[Image, ...]
    val: tuple[Image, ...]
    test: tuple[Image, ...]
    rejected: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class _Pool:
    """Images to divide among `splits`: per class, the groups in the order in which they are drawn."""

    splits: tuple[SplitName, ...]
    classes: tuple[tuple[Group, ...], ...]


def draw_splits(
    images: Sequence[Image],
    classes: Sequence[str],
    *,
    seed: int,
    per_class: Mapping[str, int] | None,
    fractions: Mapping[str, float],
    cross_validated: bool = False,
) -> Splits:
    """Divides labelled images into training, validation and test images.

    Splits that the source assigns are respected; a missing validation split is drawn from its training
    images. Train is drawn first, then val, then test, so the number of test images does not affect the
    other two.

    Args:
        images: labelled images, in any order.
        classes: class names; a label is an index into them.
        seed: seed of the draw.
        per_class: images per class of each split; None: all images, by `fractions`.
        fractions: fractions of each class's distinct images for val and for test, at least one image
            each; the rest is for training.

    Raises:
        DataError: no such splits can be drawn from these images.
    """
    _check_labels(images, classes)
    groups, rejected = _group_equal(images, classes)
    if cross_validated:
        return _all_but_test(groups, classes, rejected)
    if images[0].sample.labels is not None:
        return _spread_labels(images, groups, classes, seed, fractions, rejected)
    pools = [
        _Pool(splits, _shuffle(members, len(classes), seed))
        for splits, members in _assign_groups(groups, {image.sample.split for image in images})
    ]
    if per_class is None:
        _check_distinct(pools, classes)
    drawn: dict[SplitName, list[Image]] = {split: [] for split in SPLITS}
    too_small: list[tuple[_Pool, int]] = []
    for pool in pools:
        for label, members in enumerate(pool.classes):
            if per_class is None:
                taken = _take(members, _shares(len(members), pool.splits, fractions), weigh=lambda _: 1)
            else:
                taken = _take(members, {split: per_class[split] for split in pool.splits}, weigh=len)
            if taken is None:
                too_small.append((pool, label))
                continue
            for split, of_class in taken.items():
                drawn[split] += of_class
    if per_class is not None and too_small:
        raise DataError(_describe_shortage(too_small, pools, classes, per_class))
    return _in_order(drawn, rejected)


def _spread_labels(
    images: Sequence[Image],
    groups: Sequence[Group],
    classes: Sequence[str],
    seed: int,
    fractions: Mapping[str, float],
    rejected: Sequence[tuple[str, str]],
) -> Splits:
    """Divides images with several labels, so that each class and frequent combination is spread evenly.

    A class with too few images for all splits is trained on, and then tested.
    """
    drawn: dict[SplitName, list[Image]] = {split: [] for split in SPLITS}
    for splits, members in _assign_groups(groups, {image.sample.split for image in images}):
        members = sorted(members, key=lambda group: group[0].sha256)
        has_class = class_matrix([group[0] for group in members], len(classes))
        if "train" in splits:
            _check_trained(has_class, classes)
        has = properties(has_class, least=1 / min(fractions.values())).astype(np.int64)
        shares = [[*_shares(int(count), splits, fractions).values()] for count in has.sum(0)]
        room = [*_shares(len(members), splits, fractions).values()]
        generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed)))
        # equal bytes count once, however many files have them
        once = np.ones(len(members), np.int64)
        parts = spread(has, once, np.array(shares, np.float64), np.array(room, np.float64), generator)
        parts = fill_gaps(parts, has_class, len(splits))
        for group, part in zip(members, parts, strict=True):
            drawn[splits[part]] += group
    return _in_order(drawn, rejected)


def class_matrix(images: Sequence[Image], classes: int) -> NDArray[np.bool_]:
    """Returns whether each image has each class, ``(N, classes)``."""
    has_class = np.zeros((len(images), classes), np.bool_)
    indices = [image.sample.class_indices for image in images]
    rows = np.repeat(np.arange(len(images)), np.fromiter(map(len, indices), np.int64))
    has_class[rows, np.fromiter(chain.from_iterable(indices), np.int64)] = True
    return has_class


def _check_trained(has_class: NDArray[np.bool_], classes: Sequence[str]) -> None:
    """Raises unless each class has one of the images to train on; `has_class` is ``(N, classes)``."""
    if missing := [name for name, column in zip(classes, has_class.T, strict=True) if not column.any()]:
        raise DataError(
            f"no image to train on in {shortlist(missing, IMAGES_SHOWN)}: add some, or leave the class out"
        )


def _in_order(drawn: Mapping[SplitName, list[Image]], rejected: Sequence[tuple[str, str]]) -> Splits:
    for split, images in drawn.items():
        if images and not any(image.sample.class_indices for image in images):
            raise DataError(
                f"no image of {split} has a label, so nothing can be measured there: add images with labels"
            )
    train, val, test = (tuple(_by_label_and_id(drawn[split])) for split in SPLITS)
    return Splits(train, val, test, tuple(sorted(rejected)))


def _all_but_test(
    groups: Iterable[Group], classes: Sequence[str], rejected: Sequence[tuple[str, str]]
) -> Splits:
    """Returns the splits of a cross-validation: the source's test images, and all others for training."""
    drawn: dict[SplitName, list[Image]] = {split: [] for split in SPLITS}
    for group in groups:
        for image in group:
            drawn["test" if image.sample.split == "test" else "train"].append(image)
    _check_trained(class_matrix(drawn["train"], len(classes)), classes)
    return _in_order(drawn, rejected)


def _label(image: Image) -> int:
    assert image.sample.label is not None  # _check_labels has made sure
    return image.sample.label


def _by_label_and_id(images: Iterable[Image]) -> list[Image]:
    # two stable sorts by plain values take half as long as one by pairs
    by_id = sorted(images, key=attrgetter("sample.id"))
    return sorted(by_id, key=attrgetter("sample.class_indices"))


def _check_labels(images: Sequence[Image], classes: Sequence[str]) -> None:
    """Raises unless every image has a valid label, and either all or none of them have a split."""
    if not images:
        raise DataError("there are no labelled images to draw from: check the source and its root")
    labels = range(len(classes))
    if invalid := sorted(
        image.sample.id
        for image in images
        if not image.sample.is_labelled or any(label not in labels for label in image.sample.class_indices)
    ):
        listed = shortlist(invalid, IMAGES_SHOWN)
        raise DataError(
            f"the source gives {plural(len(invalid), 'image')} a label that is not a class: {listed}"
        )
    without = sorted(image.sample.id for image in images if image.sample.split is None)
    if 0 < len(without) < len(images):
        raise DataError(
            f"the source assigns a split to some images, but not to {len(without)}: "
            f"{shortlist(without, IMAGES_SHOWN)}; give every image a split, or none"
        )


def _group_equal(
    images: Iterable[Image], classes: Sequence[str]
) -> tuple[list[Group], list[tuple[str, str]]]:
    """Groups images with equal bytes; rejects those with a twin of another label or in a later split."""
    by_content: dict[str, list[Image]] = {}
    for image in _by_label_and_id(images):
        by_content.setdefault(image.sha256, []).append(image)
    groups: list[Group] = []
    rejected: list[tuple[str, str]] = []
    for twins in by_content.values():
        if len(twins) == 1:
            groups.append((twins[0],))
            continue
        first, last = twins[0], twins[-1]
        if first.sample.class_indices != last.sample.class_indices:
            for image in twins:
                other = last if image.sample.class_indices == first.sample.class_indices else first
                rejected.append((image.sample.id, _describe_contradiction(image, other, classes)))
            continue
        split = max((image.sample.split for image in twins), key=PRECEDENCE.index)
        group = tuple(image for image in twins if image.sample.split == split)
        groups.append(group)
        rejected += [
            (image.sample.id, f"has the same bytes as {group[0].sample.id} in the split {split!r}")
            for image in twins
            if image.sample.split != split
        ]
    return groups, rejected


def _describe_contradiction(image: Image, other: Image, classes: Sequence[str]) -> str:
    own, others = (
        join_labels(classes[label] for label in labelled.sample.class_indices) for labelled in (image, other)
    )
    return f"is labelled {own!r} and has the same bytes as {other.sample.id}, which is labelled {others!r}"


def _assign_groups(
    groups: Sequence[Group], assigned: set[SplitName | None]
) -> list[tuple[tuple[SplitName, ...], Sequence[Group]]]:
    """Returns which groups are divided among which splits, given the splits that the source assigns."""
    if assigned == {None}:
        return [(SPLITS, groups)]
    if missing := [split for split in ("train", "test") if split not in assigned]:
        present = ", ".join(split for split in SPLITS if split in assigned)
        raise DataError(
            f"the source has {present} images but no {' and no '.join(missing)} images: add a "
            f"{missing[0]} folder, or use none of the split folders to have the splits drawn"
        )
    members = {split: [group for group in groups if group[0].sample.split == split] for split in SPLITS}
    if "val" not in assigned:
        return [(("train", "val"), members["train"]), (("test",), members["test"])]
    return [((split,), members[split]) for split in SPLITS]


def _shuffle(groups: Iterable[Group], classes: int, seed: int) -> tuple[tuple[Group, ...], ...]:
    """Returns each class's groups in the order in which they are drawn; each class has its own generator."""
    by_class: list[list[Group]] = [[] for _ in range(classes)]
    for group in groups:
        by_class[_label(group[0])].append(group)
    shuffled = []
    for label, members in enumerate(by_class):
        generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, label])))
        shuffled.append(tuple(members[index] for index in generator.permutation(len(members))))
    return tuple(shuffled)


def _take(
    groups: Iterable[Group], counts: Mapping[SplitName, int], *, weigh: Callable[[Group], int]
) -> dict[SplitName, list[Image]] | None:
    """Fills one split after the other; returns None if one cannot be filled.

    A group that is larger than what a split still lacks is left to the next.
    """
    taken: dict[SplitName, list[Image]] = {}
    for split, lacking in counts.items():
        taken[split] = []
        left = []
        for group in groups:
            if weigh(group) <= lacking:
                lacking -= weigh(group)
                taken[split] += group
            else:
                left.append(group)
        if lacking:
            return None
        groups = left
    return taken


def _shares(count: int, splits: Sequence[SplitName], fractions: Mapping[str, float]) -> dict[SplitName, int]:
    """Returns how many of `count` distinct images go to each split: at least one; the first gets the rest.

    Of fewer images than splits, the first split gets one, and then the last.
    """
    first, *others = splits
    shares = {}
    left = count
    for index, split in enumerate(others):
        reserved = len(others) - index  # one for each of the splits that follow, and for the first
        shares[split] = min(max(1, round(count * fractions[split])), max(0, left - reserved))
        left -= shares[split]
    return {first: left, **shares}


def _check_distinct(pools: Iterable[_Pool], classes: Sequence[str]) -> None:
    """Raises unless each class has a distinct image for each split that its images are divided among."""
    too_small = [
        f"{classes[label]}: {_count_images(members)}, {len(pool.splits)} distinct ones needed for "
        f"{', '.join(pool.splits)}"
        for pool in pools
        for label, members in enumerate(pool.classes)
        if len(members) < len(pool.splits)
    ]
    if too_small:
        head = (
            "too few images to have one of each class in each split: add images, or leave these classes out"
        )
        raise DataError(bulleted(head, too_small))


def _describe_shortage(
    too_small: Iterable[tuple[_Pool, int]],
    pools: Iterable[_Pool],
    classes: Sequence[str],
    per_class: Mapping[str, int],
) -> str:
    lacking = [
        f"{classes[label]}: {_count_images(pool.classes[label])}, "
        f"{sum(per_class[split] for split in pool.splits)} asked for {', '.join(pool.splits)}"
        for pool, label in too_small
    ]
    largest = [_largest_counts(pool, per_class) for pool in pools]
    advice = "no smaller numbers would do: add images"
    if all(largest):
        numbers = {split: number for counts in largest for split, number in counts.items()}
        listed = ", ".join(f"{split} = {numbers[split]}" for split in SPLITS)
        advice = f"add images, or ask for fewer: per_class = {{ {listed} }} would do"
    return f"{bulleted('too few images in a class for data.per_class', lacking)}\n{advice}"


def _count_images(groups: Sequence[Group]) -> str:
    images = sum(map(len, groups))
    counted = plural(images, "image")
    return counted if images == len(groups) else f"{counted} ({len(groups)} distinct)"


def _largest_counts(pool: _Pool, per_class: Mapping[str, int]) -> dict[SplitName, int]:
    """Returns the largest numbers, in the requested proportions, that every class can meet; empty if none."""
    requested = {split: per_class[split] for split in pool.splits}
    total = sum(requested.values())
    smallest_first = sorted(pool.classes, key=len)
    for size in range(min(total, *(sum(map(len, groups)) for groups in smallest_first)), 0, -1):
        counts = {split: max(1, size * number // total) for split, number in requested.items()}
        for split in pool.splits[: max(0, size - sum(counts.values()))]:
            counts[split] += 1
        if all(_take(groups, counts, weigh=len) is not None for groups in smallest_first):
            return counts
    return {}
