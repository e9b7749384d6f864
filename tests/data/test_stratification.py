"""Images with several labels, spread over splits and folds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tlkit.data import folds
from tlkit.data.folds import draw_folds
from tlkit.data.images import Image
from tlkit.data.splits import Splits, class_matrix, draw_splits
from tlkit.data.stratification import fill_gaps
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


def test_a_class_with_too_few_images_is_trained_on_and_then_tested() -> None:
    for count, expected in ((1, [1, 0, 0]), (2, [1, 0, 1])):
        images = [*make_images(50)[12:], *(make_image(f"x{number}", 0, 1) for number in range(count))]
        splits = drawn(images)
        assert [
            class_matrix(part, 3)[:, 0].sum() for part in (splits.train, splits.val, splits.test)
        ] == expected
    with pytest.raises(DataError, match="no image to train on in rare: add some, or leave the class out"):
        drawn(make_images(50)[12:])


def test_the_spare_image_of_a_class_is_for_testing_before_validation() -> None:
    has_class = np.array([[1, 0], [1, 0], [0, 1], [0, 1], [0, 1]], np.bool_)
    filled = fill_gaps(np.array([0, 0, 0, 1, 2]), has_class, 3)
    assert sorted(filled[:2]) == [0, 2] and filled[2:].tolist() == [0, 1, 2]


def test_every_split_has_each_class_that_has_enough_images() -> None:
    """Rarer labels of the same images are dealt out before: without care, they take all of a class along."""
    names = tuple(f"c{number}" for number in range(12))
    for seed in range(40):
        generator = np.random.default_rng(seed)
        has = generator.random((30, 12)) < generator.choice([0.05, 0.2, 0.6], 12)
        has[:, ~has.any(0)] |= np.arange(30)[:, None] < 3
        images = [make_image(f"{number}", *np.flatnonzero(row).tolist()) for number, row in enumerate(has)]
        splits = draw_splits(images, names, seed=seed, per_class=None, fractions={"val": 0.2, "test": 0.2})
        counts = np.stack([class_matrix(part, 12).sum(0) for part in (splits.train, splits.val, splits.test)])
        assert counts[0].all() and counts[:, has.sum(0) >= 4].all()


def test_a_split_of_the_source_may_lack_a_class_but_for_training() -> None:
    images = [
        make_image("1", 0, 1, split="train"),
        make_image("2", 2, split="train"),
        make_image("3", 0, split="val"),
        make_image("4", 1, split="test"),
    ]
    assert len(drawn(images).test) == 1
    with pytest.raises(DataError, match="no image to train on in often, half"):
        drawn([make_image("1", 0, split="train"), *images[2:], make_image("5", 1, 2, split="test")])


@pytest.mark.parametrize("cross_validated", [False, True])
def test_a_split_without_any_label_is_refused(cross_validated: bool) -> None:
    images = [make_image("1", 0, 1, 2, split="train"), make_image("2", 0, split="val"),
              make_image("3", split="test")]  # fmt: skip
    with pytest.raises(DataError, match="no image of test has a label, so nothing can be measured there"):
        draw_splits(images, CLASSES, seed=1, per_class=None, fractions={"val": 0.2, "test": 0.2},
                    cross_validated=cross_validated)  # fmt: skip


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


def test_a_regular_expression_that_takes_for_ever_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folds, "SEARCH_SECONDS", 0.5)
    images = [make_image("a" * 40 + "!", 1, 2), *make_images(20)]
    with pytest.raises(
        DataError, match=r"data.group: searching '\(a\+\)\+\$' in the names of 21 images takes"
    ):
        draw_folds(images, CLASSES, seed=1, folds=2, group=r"(a+)+$")


@pytest.mark.parametrize(
    ("search", "reason"),
    [("raise MemoryError('too much')", "MemoryError: too much"), ("import os; os.abort()", "died with")],
)
def test_a_search_that_fails_is_reported(monkeypatch: pytest.MonkeyPatch, search: str, reason: str) -> None:
    monkeypatch.setattr(folds, "SEARCH", search)
    with pytest.raises(DataError, match=f"data.group: the process that searches 'a' failed: .*{reason}"):
        draw_folds(make_images(20), CLASSES, seed=1, folds=2, group="a")


def test_a_class_in_one_group_is_trained_on_in_every_fold() -> None:
    images = [*make_images(100)[12:], make_image("x", 0, 1), make_image("y", 0, 1, content="x")]
    drawn_folds = draw_folds(images, CLASSES, seed=1, folds=4)
    assert drawn_folds.untested == ("rare",)
    assert drawn_folds.assignment[0, -2:].tolist() == [-1, -1]
