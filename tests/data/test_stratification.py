"""Images with several labels, spread over splits and folds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tlkit.data.folds import draw_folds
from tlkit.data.images import Image
from tlkit.data.splits import Splits, class_matrix, draw_splits
from tlkit.errors import DataError
from tlkit.parts.source import Sample, SplitName

CLASSES = ("rare", "often", "half")


def make_image(name: str, *labels: int, content: str = "", split: SplitName | None = None) -> Image:
    return Image(Sample(name, Path(name), None, split, labels=labels), content or name, 9, 9)


def make_images(count: int) -> list[Image]:
    """Returns images with random labels: many have none, 12 have the first."""
    generator = np.random.default_rng(0)
    has = generator.random((count, 3)) < (0, 0.3, 0.5)
    has[:12, 0] = True
    return [make_image(f"{number}.png", *np.flatnonzero(row).tolist()) for number, row in enumerate(has)]


def drawn(images: list[Image], seed: int = 1) -> Splits:
    fractions = {"val": 0.2, "test": 0.2}
    return draw_splits(images, CLASSES, seed=seed, per_class=None, fractions=fractions)


def shares(images: tuple[Image, ...]) -> list[float]:
    """Returns the share of the images of each class, of none, and of the last two together."""
    has = class_matrix(images, 3)
    return [*has.mean(0), (~has.any(1)).mean(), has[:, 1:].all(1).mean()]


def test_splits_have_each_class_and_combination_in_proportion() -> None:
    images = make_images(400)
    splits = drawn(images)
    assert [len(splits.train), len(splits.val), len(splits.test)] == pytest.approx([240, 80, 80], abs=2)
    assert class_matrix(splits.val, 3)[:, 0].sum() == class_matrix(splits.test, 3)[:, 0].sum() == 2
    for part in (splits.train, splits.val, splits.test):
        assert np.abs(np.subtract(shares(part), shares(tuple(images)))).max() < 0.015
    assert drawn(images[::-1]) == splits and drawn(images, seed=2) != splits


def test_equal_bytes_stay_together_and_contradictions_are_left_out() -> None:
    images = make_images(100)
    images += [make_image(f"twin {number}", *image.sample.class_indices, content=image.sha256)
               for number, image in enumerate(images[:30])]  # fmt: skip
    images += [make_image("a", 1, 2, content="same"), make_image("b", 1, content="same")]
    splits = drawn(images)
    contents = [{image.sha256 for image in part} for part in (splits.train, splits.val, splits.test)]
    assert sum(map(len, contents)) == len(set.union(*contents)) == 100
    reasons = dict(splits.rejected)
    assert reasons["a"] == "is labelled 'often|half' and has the same bytes as b, which is labelled 'often'"
    assert len(reasons) == 2


def test_a_class_with_too_few_images_is_named() -> None:
    images = [*make_images(50)[12:], make_image("x", 0), make_image("y", 0, 1)]
    with pytest.raises(DataError, match="rare: 2 distinct images, 3 needed for train, val, test"):
        drawn(images)


def test_splits_of_the_source_are_respected() -> None:
    images = [
        make_image(f"{split}/{image.sample.id}", *image.sample.class_indices, split=split)
        for split in ("train", "test")
        for image in make_images(60)
    ]
    splits = drawn(images)
    assert {image.sample.split for image in splits.val} == {"train"} and len(splits.test) == 60


def test_folds_are_spread_and_keep_groups_together() -> None:
    images = make_images(300)
    plain = draw_folds(images, CLASSES, seed=1, folds=5)
    for fold in range(5):
        held_out = tuple(images[index] for index in plain.held_out(0, fold))
        assert abs(len(held_out) - 60) <= 2
        assert np.abs(np.subtract(shares(held_out), shares(tuple(images)))).max() < 0.03
        assert class_matrix(held_out, 3)[:, 0].sum() in (2, 3)
    grouped = draw_folds(images, CLASSES, seed=1, folds=5, repeats=2, group=r"^(\d)")
    for assignment in grouped.assignment:
        folds_of = {name: {assignment[index] for index, image in enumerate(images)
                           if image.sample.id.startswith(name)} for name in "123456789"}  # fmt: skip
        assert all(len(folds) == 1 for folds in folds_of.values())


def test_a_class_in_one_group_is_trained_on_in_every_fold() -> None:
    images = [*make_images(100)[12:], make_image("x", 0, 1), make_image("y", 0, 1, content="x")]
    drawn_folds = draw_folds(images, CLASSES, seed=1, folds=4)
    assert drawn_folds.untested == ("rare",)
    assert drawn_folds.assignment[0, -2:].tolist() == [-1, -1]
