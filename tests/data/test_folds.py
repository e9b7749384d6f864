"""Folds: stratified, groups together, classes that cannot be divided."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tlkit.data.dataset import divide_images
from tlkit.data.folds import Folds, draw_folds
from tlkit.data.images import Image
from tlkit.errors import DataError
from tlkit.parts.source import SPLITS, Sample
from tlkit.recipe.schema import DataSpec, PartSpec

CLASSES = ("ant", "bee", "cat")


def make_image(name: str, label: int, sha256: str) -> Image:
    return Image(sample=Sample(name, Path(name), label), sha256=sha256, width=9, height=9)


def make_images(counts: list[int], shots: int = 1) -> list[Image]:
    """Returns images of each class, named after bursts of `shots`."""
    return [
        make_image(f"{CLASSES[label]}/{number // shots}-{number % shots}.jpg", label, f"{label}-{number}")
        for label, count in enumerate(counts)
        for number in range(count)
    ]


def draw(images: list[Image], **options: object) -> Folds:
    return draw_folds(images, CLASSES, **{"seed": 1, "folds": 5, **options})  # type: ignore[arg-type]


def test_every_class_is_spread_over_the_folds() -> None:
    images = make_images([50, 20, 7])
    drawn = draw(images, repeats=3)
    labels = np.array([image.sample.label for image in images])
    assert drawn.assignment.shape == (3, 77)
    for assignment in drawn.assignment:
        for label, count in enumerate((50, 20, 7)):
            sizes = np.bincount(assignment[labels == label], minlength=5)
            assert sizes.sum() == count and sizes.max() - sizes.min() <= 1
    assert (drawn.assignment[0] != drawn.assignment[1]).any()
    assert (draw(images, repeats=3).assignment == drawn.assignment).all()
    assert (draw(images, seed=2).assignment[0] != drawn.assignment[0]).any()


def test_held_out_and_trained_on_share_no_image() -> None:
    drawn = draw(make_images([10, 10, 10]))
    held_out, trained_on = drawn.held_out(0, 2), drawn.trained_on(0, 2)
    assert sorted([*held_out, *trained_on]) == [*range(30)]
    assert not {*drawn.trained_on(0, 2, 3)} & {*held_out, *drawn.held_out(0, 3)}


def test_groups_stay_together() -> None:
    images = make_images([60, 60, 60], shots=4)
    drawn = draw(images, group=r"^(\w+/\d+)-", repeats=2)
    for assignment in drawn.assignment:
        folds_of: dict[str, set[int]] = {}
        for image, fold in zip(images, assignment, strict=True):
            folds_of.setdefault(image.sample.id.partition("-")[0], set()).add(int(fold))
        assert len(folds_of) == 45 and all(len(folds) == 1 for folds in folds_of.values())
    own = [
        replace(image, sample=replace(image.sample, group=image.sample.id.partition("-")[0]))
        for image in images
    ]
    assert (draw(own, repeats=2).assignment == drawn.assignment).all()
    alone = draw(images).assignment[0]
    assert any(alone[index] != alone[index + 1] for index in range(0, 180, 4))


def test_images_with_equal_bytes_stay_together() -> None:
    images = make_images([20, 20, 20])
    twin = images[0]
    images.append(make_image("ant/twin.jpg", 0, twin.sha256))
    for seed in range(8):
        assignment = draw(images, seed=seed).assignment[0]
        assert assignment[0] == assignment[-1]


def test_a_class_with_one_image_is_always_trained_on() -> None:
    drawn = draw(make_images([20, 20, 1]))
    assert drawn.untested == ("cat",)
    assert (drawn.assignment[0] == -1).tolist() == [False] * 40 + [True]
    for fold in range(5):
        assert 40 in drawn.trained_on(0, fold) and 40 not in drawn.held_out(0, fold)


def test_a_class_with_fewer_images_than_folds_is_tested_once_per_image() -> None:
    drawn = draw(make_images([20, 20, 3]))
    assert not drawn.untested
    assert sorted(np.bincount(drawn.assignment[0][40:], minlength=5)) == [0, 0, 1, 1, 1]


def test_more_folds_than_images_are_refused() -> None:
    with pytest.raises(DataError, match="the largest has 4 distinct images; at most 4 folds can be drawn"):
        draw(make_images([4, 3, 2]))
    with pytest.raises(DataError, match="the largest has 3 groups"):
        draw(make_images([12, 12, 12], shots=4), group=r"^(\w+/\d+)-")
    copies = [make_image(f"ant/{number}.jpg", 0, "same") for number in range(3)]
    with pytest.raises(DataError, match=r"no class has two distinct images .*: add images"):
        draw(copies)


def test_drawn_splits_would_divide_groups_and_are_refused() -> None:
    images = [
        replace(image, sample=replace(image.sample, group="patient 7")) for image in make_images([9, 9, 9])
    ]
    data = DataSpec(source=PartSpec(name="folder"))
    with pytest.raises(DataError, match=r"'patient 7' of ant/0-0.jpg, .*: set data.folds"):
        divide_images(images, CLASSES, data, 1, None)
    own = [
        replace(image, sample=replace(image.sample, split=SPLITS[number % 3]))
        for number, image in enumerate(images)
    ]
    assert len(divide_images(own, CLASSES, data, 1, None).test) == 9


def test_a_pattern_without_a_match_is_refused() -> None:
    with pytest.raises(DataError, match=r"'patient' matches no image; their names are such as 'ant/0-0.jpg'"):
        draw(make_images([9, 9, 9]), group="patient")
