"""Splits: disjoint, stratified, the same every time, and nothing leaks into evaluation."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

import pytest

from tlkit.data.images import Image
from tlkit.data.inspection import inspect_images
from tlkit.data.splits import Splits, draw_splits
from tlkit.errors import DataError
from tlkit.parts.source import Sample, SplitName

CLASSES = ("cat", "dog")
FRACTIONS = {"val": 0.15, "test": 0.15}


def image(name: str, content: str | None = None, split: SplitName | None = None) -> Image:
    """Returns an image whose class is the first word of its name; `content` stands for its bytes."""
    label = CLASSES.index(re.split(r"\W", name)[0])
    return Image(Sample(name, Path(name), label, split), content or name, 10, 10)


def images(count: int, split: SplitName | None = None) -> list[Image]:
    """Returns `count` images of each class, numbered from 0."""
    tail = f" {split}" if split else ""
    return [image(f"{name}.{number}{tail}", split=split) for name in CLASSES for number in range(count)]


def drawn(
    pool: Iterable[Image],
    numbers: tuple[int, int, int] | None = None,
    *,
    seed: int = 1,
    fractions: Mapping[str, float] = FRACTIONS,
) -> Splits:
    per_class = dict(zip(("train", "val", "test"), numbers, strict=True)) if numbers else None
    return draw_splits([*pool], CLASSES, seed=seed, per_class=per_class, fractions=fractions)


def ids(part: Iterable[Image]) -> list[str]:
    return [image.sample.id for image in part]


def parts(splits: Splits) -> list[tuple[Image, ...]]:
    return [splits.train, splits.val, splits.test]


def per_class(splits: Splits) -> list[tuple[int, int]]:
    counts = [Counter(image.sample.label for image in part) for part in parts(splits)]
    return [(count[0], count[1]) for count in counts]


def check_disjoint(splits: Splits) -> None:
    contents = [{image.sha256 for image in part} for part in parts(splits)]
    assert sum(map(len, contents)) == len(set.union(*contents))


def test_the_requested_number_of_images_per_class() -> None:
    splits = drawn(images(30), (10, 4, 6))
    assert per_class(splits) == [(10, 10), (4, 4), (6, 6)]
    check_disjoint(splits)
    assert splits.rejected == ()


def test_the_draw_is_random_and_independent_for_each_class() -> None:
    train = ids(drawn(images(200), (50, 10, 10)).train)
    cats = {name.split(".")[1] for name in train if name.startswith("cat")}
    dogs = {name.split(".")[1] for name in train if name.startswith("dog")}
    assert cats != dogs
    assert {int(number) // 50 for number in cats} == {0, 1, 2, 3}
    assert train != ids(drawn(images(200), (50, 10, 10), seed=2).train)


def test_the_order_of_the_images_changes_nothing() -> None:
    pool = [*images(40), image("cat.twin", "cat.3"), image("dog.odd", "cat.5")]
    shuffled = random.Random(0).sample(pool, len(pool))
    assert drawn(pool, (10, 4, 6)) == drawn(shuffled, (10, 4, 6))
    assert drawn(pool) == drawn(shuffled)
    order = [(image.sample.label or 0, image.sample.id) for image in drawn(shuffled).train]
    assert order == sorted(order)


def test_the_number_of_test_images_does_not_affect_the_other_splits() -> None:
    few, many = drawn(images(60), (20, 10, 5)), drawn(images(60), (20, 10, 30))
    assert (few.train, few.val) == (many.train, many.val)
    assert set(few.test) < set(many.test)


def test_fractions_hold_in_each_class() -> None:
    pool = [*images(100), *(image(f"dog.more {number}") for number in range(100))]
    splits = drawn(pool)
    assert per_class(splits) == [(70, 140), (15, 30), (15, 30)]
    check_disjoint(splits)


@pytest.mark.parametrize("count", [3, 4, 7, 11])
@pytest.mark.parametrize("fractions", [(0.15, 0.15), (0.01, 0.01), (0.9, 0.05), (0.1, 0.8)])
def test_every_split_has_one_of_each_class_and_every_image_is_used(
    count: int, fractions: tuple[float, float]
) -> None:
    splits = drawn(images(count), fractions=dict(zip(("val", "test"), fractions, strict=True)))
    assert min(min(pair) for pair in per_class(splits)) >= 1
    assert sum(map(len, parts(splits))) == 2 * count


@pytest.mark.parametrize("numbers", [None, (12, 4, 4)])
@pytest.mark.parametrize("seed", range(5))
def test_equal_images_stay_together(numbers: tuple[int, int, int] | None, seed: int) -> None:
    pool = [*images(20), *(image(f"cat.copy {number}", f"cat.{number % 5}") for number in range(10))]
    splits = drawn(pool, numbers, seed=seed)
    check_disjoint(splits)
    if numbers:
        assert per_class(splits) == [(12, 12), (4, 4), (4, 4)]
    else:
        assert sum(map(len, parts(splits))) == len(pool)


def test_a_group_too_large_for_a_split_goes_to_a_later_one() -> None:
    copies = [f"cat.copy {number}" for number in range(5)]
    pool = [*(image(name, "same") for name in copies), *images(11)[5:]]
    for seed in range(10):
        splits = drawn(pool, (4, 2, 5), seed=seed)
        assert ids(splits.test)[:5] == copies


def test_equal_bytes_under_two_labels_are_all_rejected() -> None:
    pool = [*images(10), image("cat.a", "same"), image("cat.b", "same"), image("dog.c", "same")]
    splits = drawn(pool, (5, 2, 2))
    assert splits.rejected == (
        ("cat.a", "is labelled 'cat' and has the same bytes as dog.c, which is labelled 'dog'"),
        ("cat.b", "is labelled 'cat' and has the same bytes as dog.c, which is labelled 'dog'"),
        ("dog.c", "is labelled 'dog' and has the same bytes as cat.a, which is labelled 'cat'"),
    )
    assert not {"cat.a", "cat.b", "dog.c"} & {name for part in parts(drawn(pool)) for name in ids(part)}


def test_too_few_images_lists_every_class_and_numbers_that_would_do() -> None:
    pool = [*images(13), image("dog.twin", "dog.1")]
    with pytest.raises(DataError) as error:
        drawn(pool, (20, 5, 5))
    assert str(error.value).splitlines() == [
        "too few images in a class for data.per_class",
        "  - cat: 13 images, 30 asked for train, val, test",
        "  - dog: 14 images (13 distinct), 30 asked for train, val, test",
        "add images, or ask for fewer: per_class = { train = 9, val = 2, test = 2 } would do",
    ]
    assert per_class(drawn(pool, (9, 2, 2))) == [(9, 9), (2, 2), (2, 2)]


def test_too_few_images_in_one_class_only() -> None:
    pool = [*images(9), *(image(f"cat.more {number}") for number in range(20))]
    with pytest.raises(DataError) as error:
        drawn(pool, (4, 4, 4))
    assert "cat" not in str(error.value)
    assert "dog: 9 images, 12 asked" in str(error.value)
    assert "train = 3, val = 3, test = 3" in str(error.value)


def test_numbers_that_copies_make_impossible() -> None:
    copies = [image(f"cat.copy {number}", "same") for number in range(9)]
    with pytest.raises(DataError, match=r"cat: 9 images \(1 distinct\).*\n.*no smaller numbers would do"):
        drawn([*copies, *images(9)[9:]], (3, 3, 3))


def test_fewer_than_three_distinct_images_cannot_be_stratified() -> None:
    pool = [*images(9)[9:], image("cat.1"), image("cat.2"), image("cat.3", "cat.2")]
    with pytest.raises(
        DataError, match=r"one of each class.*\n  - cat: 3 images \(2 distinct\), 3 distinct ones needed"
    ) as error:
        drawn(pool)
    assert "dog" not in str(error.value)


def test_splits_that_the_source_assigns_are_respected() -> None:
    pool = [*images(5, "train"), *images(3, "val"), *images(4, "test")]
    for part, split in zip(parts(drawn(pool)), ("train", "val", "test"), strict=True):
        assert set(part) == {image for image in pool if image.sample.split == split}


def test_numbers_are_drawn_from_each_assigned_split() -> None:
    pool = [*images(5, "train"), *images(3, "val"), *images(4, "test")]
    splits = drawn(pool, (4, 2, 3))
    assert per_class(splits) == [(4, 4), (2, 2), (3, 3)]
    for part, split in zip(parts(splits), ("train", "val", "test"), strict=True):
        assert {image.sample.split for image in part} == {split}


def test_too_few_images_in_assigned_splits() -> None:
    pool = [*images(5, "train"), *images(3, "val"), *images(4, "test")]
    with pytest.raises(DataError) as error:
        drawn(pool, (5, 4, 9))
    assert str(error.value).splitlines() == [
        "too few images in a class for data.per_class",
        "  - cat: 3 images, 4 asked for val",
        "  - dog: 3 images, 4 asked for val",
        "  - cat: 4 images, 9 asked for test",
        "  - dog: 4 images, 9 asked for test",
        "add images, or ask for fewer: per_class = { train = 5, val = 3, test = 4 } would do",
    ]


@pytest.mark.parametrize(("numbers", "expected"), [(None, [(17, 17), (3, 3), (4, 4)]), ((9, 6, 2), None)])
def test_a_missing_validation_split_is_drawn_from_training(
    numbers: tuple[int, int, int] | None, expected: list[tuple[int, int]] | None
) -> None:
    splits = drawn([*images(20, "train"), *images(4, "test")], numbers)
    assert per_class(splits) == (expected or [(9, 9), (6, 6), (2, 2)])
    assert {image.sample.split for image in splits.val} == {"train"}
    check_disjoint(splits)


@pytest.mark.parametrize(
    ("assigned", "message"),
    [
        (["train", "val"], "has train, val images but no test images: add a test folder, or use none"),
        (["train"], "has train images but no test images"),
        (["test"], "has test images but no train images: add a train folder"),
        (["val"], "no train and no test images"),
    ],
)
def test_an_assigned_training_split_needs_a_test_split(assigned: list[SplitName], message: str) -> None:
    with pytest.raises(DataError, match=message):
        drawn([image for split in assigned for image in images(4, split)])


def test_a_split_for_some_images_only() -> None:
    with pytest.raises(DataError, match=r"not to 4: cat\.0, cat\.1, dog\.0, dog\.1; give every image"):
        drawn([*images(5, "train"), *images(5, "test"), *images(2)])


def test_equal_bytes_in_two_assigned_splits_stay_in_the_later_one() -> None:
    pool = [*images(5, "train"), *images(5, "val"), *images(5, "test")]
    pool += [image("cat.a", "1", "train"), image("cat.b", "1", "val"), image("cat.c", "1", "test")]
    pool += [image("dog.a", "2", "train"), image("dog.b", "2", "val"), image("dog.c", "2", "val")]
    splits = drawn(pool)
    assert splits.rejected == (
        ("cat.a", "has the same bytes as cat.c in the split 'test'"),
        ("cat.b", "has the same bytes as cat.c in the split 'test'"),
        ("dog.a", "has the same bytes as dog.b in the split 'val'"),
    )
    check_disjoint(splits)
    assert {"cat.c"} < set(ids(splits.test))
    assert {"dog.b", "dog.c"} < set(ids(splits.val))


def test_images_without_a_class_and_no_images() -> None:
    stray = Image(Sample("stray", Path("stray"), 2), "x", 1, 1)
    bare = Image(Sample("bare", Path("bare")), "y", 1, 1)
    with pytest.raises(DataError, match="2 images a label that is not a class: bare, stray"):
        drawn([*images(5), stray, bare])
    with pytest.raises(DataError, match="no labelled images"):
        drawn([])


def test_real_photos_are_distinguished_by_their_bytes(few_photos: Path) -> None:
    twin = few_photos / "cat.twin.jpg"
    twin.write_bytes((few_photos / "cat.1.jpg").read_bytes())
    samples = [Sample(path.name, path, CLASSES.index(path.name[:3])) for path in few_photos.iterdir()]
    readable, rejected = inspect_images(samples, threads=2)
    assert (len(readable), rejected) == (31, [])
    for seed in range(5):
        splits = drawn(readable, seed=seed)
        containing = [part for part in parts(splits) if {"cat.1.jpg", "cat.twin.jpg"} & set(ids(part))]
        assert len(containing) == 1
