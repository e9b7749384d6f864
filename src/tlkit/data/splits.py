"""Which images train, which validate and which test.

Images with equal bytes always go to the same split, so that nothing a classifier learnt from is in its
test. The draw depends on the seed and on the images, never on the order they come in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from tlkit.errors import DataError
from tlkit.parts.source import SPLITS, SplitName

if TYPE_CHECKING:
    from tlkit.data.images import Image

    #: Images with equal bytes and the same label.
    Group = tuple[Image, ...]

#: An image that is in several of the source's own splits stays in the last of these.
PRECEDENCE: tuple[SplitName | None, ...] = (None, "train", "val", "test")
NAMES_SHOWN = 5


@dataclass(frozen=True)
class Splits:
    """Labelled images by what they are for, each part sorted by label and id.

    Attributes:
        train: what is learnt from.
        val: what chooses among epochs.
        test: what the results are measured on.
        rejected: (sample id, reason) of images that belong in none.
    """

    train: tuple[Image, ...]
    val: tuple[Image, ...]
    test: tuple[Image, ...]
    rejected: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class _Pool:
    """Images that are dealt out to `splits`: per class, the groups in the order they are drawn."""

    splits: tuple[SplitName, ...]
    classes: tuple[tuple[Group, ...], ...]


def draw_splits(
    images: Sequence[Image],
    classes: Sequence[str],
    *,
    seed: int,
    per_class: Mapping[str, int] | None,
    fractions: Mapping[str, float],
) -> Splits:
    """Divides labelled images into training, validation and test images.

    Splits that the source knows are kept; a missing validation split is drawn from its training
    images. Train is drawn first, then val, then test, so that another number of test images leaves the
    other two as they were.

    Args:
        images: labelled images, in any order.
        classes: class names; a label is an index into them.
        seed: of the draw.
        per_class: images per class of each split; None: all images, by `fractions`.
        fractions: parts of each class's distinct images that go to val and to test, at least one to
            each; the rest is for training.

    Raises:
        DataError: no such splits can be drawn from these images.
    """
    _must_be_labelled(images, classes)
    groups, rejected = _groups(images, classes)
    pools = [
        _Pool(splits, _shuffled(own, len(classes), seed))
        for splits, own in _divide(groups, {image.sample.split for image in images})
    ]
    if per_class is None:
        _must_be_enough_distinct(pools, classes)
    drawn: dict[SplitName, list[Image]] = {split: [] for split in SPLITS}
    short: list[tuple[_Pool, int]] = []
    for pool in pools:
        for label, own in enumerate(pool.classes):
            if per_class is None:
                taken = _take(own, _shares(len(own), pool.splits, fractions), weigh=lambda _: 1)
            else:
                taken = _take(own, {split: per_class[split] for split in pool.splits}, weigh=len)
            if taken is None:
                short.append((pool, label))
            for split, found in (taken or {}).items():
                drawn[split] += found
    if per_class is not None and short:
        raise DataError(_shortage(short, pools, classes, per_class))
    train, val, test = (tuple(sorted(drawn[split], key=_place)) for split in SPLITS)
    return Splits(train, val, test, tuple(sorted(rejected)))


def _label(image: Image) -> int:
    assert image.sample.label is not None  # _must_be_labelled has seen to it
    return image.sample.label


def _place(image: Image) -> tuple[int, str]:
    return _label(image), image.sample.id


def _must_be_labelled(images: Sequence[Image], classes: Sequence[str]) -> None:
    if not images:
        raise DataError("there are no labelled images to draw from: check the source and its root")
    known = range(len(classes))
    if wrong := sorted(image.sample.id for image in images if image.sample.label not in known):
        raise DataError(f"the source gives {len(wrong)} images a label that is no class: {_some(wrong)}")
    if unplaced := sorted(image.sample.id for image in images if image.sample.split is None):
        if len(unplaced) < len(images):
            raise DataError(
                f"the source knows the split of some images, but not of {len(unplaced)}: {_some(unplaced)}; "
                "give every image a split, or none"
            )


def _groups(images: Iterable[Image], classes: Sequence[str]) -> tuple[list[Group], list[tuple[str, str]]]:
    """Images with equal bytes, together; and those whose twins have another label or a later split."""
    twins: dict[str, list[Image]] = {}
    for image in sorted(images, key=_place):
        twins.setdefault(image.sha256, []).append(image)
    groups: list[Group] = []
    rejected: list[tuple[str, str]] = []
    for group in twins.values():
        first, last = group[0], group[-1]
        if _label(first) != _label(last):
            for image in group:
                other = last if _label(image) == _label(first) else first
                rejected.append((image.sample.id, _contradiction(image, other, classes)))
            continue
        split = max((image.sample.split for image in group), key=PRECEDENCE.index)
        kept = tuple(image for image in group if image.sample.split == split)
        groups.append(kept)
        rejected += [
            (image.sample.id, f"has the same bytes as {kept[0].sample.id} in the split {split!r}")
            for image in group
            if image.sample.split != split
        ]
    return groups, rejected


def _contradiction(image: Image, other: Image, classes: Sequence[str]) -> str:
    return (
        f"is labelled {classes[_label(image)]!r} and has the same bytes as {other.sample.id}, "
        f"which is labelled {classes[_label(other)]!r}"
    )


def _divide(
    groups: Sequence[Group], known: set[SplitName | None]
) -> list[tuple[tuple[SplitName, ...], Sequence[Group]]]:
    """Which groups are dealt out to which splits."""
    if known == {None}:
        return [(SPLITS, groups)]
    if missing := [split for split in ("train", "test") if split not in known]:
        found = ", ".join(split for split in SPLITS if split in known)
        raise DataError(
            f"the source has {found} images but no {' and no '.join(missing)} images: add a "
            f"{missing[0]} folder, or use none of the split folders to have the splits drawn"
        )
    own = {split: [group for group in groups if group[0].sample.split == split] for split in SPLITS}
    if "val" not in known:
        return [(("train", "val"), own["train"]), (("test",), own["test"])]
    return [((split,), own[split]) for split in SPLITS]


def _shuffled(groups: Iterable[Group], classes: int, seed: int) -> tuple[tuple[Group, ...], ...]:
    """Each class's groups, sorted as they come, in the order that its own generator draws them."""
    per_class: list[list[Group]] = [[] for _ in range(classes)]
    for group in groups:
        per_class[_label(group[0])].append(group)
    shuffled = []
    for label, own in enumerate(per_class):
        generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, label])))
        shuffled.append(tuple(own[index] for index in generator.permutation(len(own))))
    return tuple(shuffled)


def _take(
    groups: Iterable[Group], counts: Mapping[SplitName, int], *, weigh: Callable[[Group], int]
) -> dict[SplitName, list[Image]] | None:
    """Fills one split after the other; None if one cannot be filled.

    A group that is too large for what a split still lacks is left to the next.
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
    """How many of `count` distinct images go to each split: at least one, the first gets the rest."""
    first, *others = splits
    shares = {}
    left = count
    for place, split in enumerate(others):
        still_waiting = len(others) - place
        shares[split] = min(max(1, round(count * fractions[split])), left - still_waiting)
        left -= shares[split]
    return {first: left, **shares}


def _must_be_enough_distinct(pools: Iterable[_Pool], classes: Sequence[str]) -> None:
    lines = [
        f"  - {classes[label]}: {len(own)} distinct, {len(pool.splits)} needed for {', '.join(pool.splits)}"
        for pool in pools
        for label, own in enumerate(pool.classes)
        if len(own) < len(pool.splits)
    ]
    if lines:
        raise DataError(
            "\n".join(["too few images to have one of each class in each split: add some", *lines])
        )


def _shortage(
    short: Iterable[tuple[_Pool, int]],
    pools: Iterable[_Pool],
    classes: Sequence[str],
    per_class: Mapping[str, int],
) -> str:
    lines = [
        f"  - {classes[label]}: {_size(pool.classes[label])}, "
        f"{sum(per_class[split] for split in pool.splits)} asked for {', '.join(pool.splits)}"
        for pool, label in short
    ]
    possible = [_possible(pool, per_class) for pool in pools]
    advice = "no smaller numbers would do: add images"
    if all(possible):
        numbers = {split: number for found in possible for split, number in found.items()}
        listed = ", ".join(f"{split} = {numbers[split]}" for split in SPLITS)
        advice = f"add images, or ask for fewer: per_class = {{ {listed} }} would do"
    return "\n".join(["too few images in a class for data.per_class", *lines, advice])


def _size(groups: Sequence[Group]) -> str:
    images = sum(map(len, groups))
    return f"{images} images" if images == len(groups) else f"{images} images ({len(groups)} distinct)"


def _possible(pool: _Pool, per_class: Mapping[str, int]) -> dict[SplitName, int]:
    """The largest numbers, in the proportions asked for, that every class can meet; empty if none."""
    asked = {split: per_class[split] for split in pool.splits}
    total = sum(asked.values())
    smallest = sorted(pool.classes, key=len)
    for size in range(min(total, *(sum(map(len, own)) for own in smallest)), 0, -1):
        numbers = {split: max(1, size * number // total) for split, number in asked.items()}
        for split in pool.splits[: max(0, size - sum(numbers.values()))]:
            numbers[split] += 1
        if all(_take(own, numbers, weigh=len) is not None for own in smallest):
            return numbers
    return {}


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(names[:NAMES_SHOWN])
    return shown if len(names) <= NAMES_SHOWN else f"{shown} and {len(names) - NAMES_SHOWN} more"
