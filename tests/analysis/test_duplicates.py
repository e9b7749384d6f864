"""Copies of real photos are found, and photos of one object are told from them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

import tlkit
from tlkit.analysis.audit import audit_features
from tlkit.analysis.audit_file import Audit
from tlkit.analysis.duplicates import NEIGHBOURS, find_copies
from tlkit.analysis.features import DatasetFeatures, compute_features, read_labelled
from tlkit.analysis.leaks import find_leaks
from tlkit.analysis.neighbours import nearest
from tlkit.analysis.targets import recipe_for
from tlkit.errors import DataError, ReportError
from tlkit.experiment.cached_features import CachedFeatures
from tlkit.experiment.observer import Observer
from tlkit.plugins.loader import load_registry

SHARED = Path(__file__).parents[3] / "shared"
BACKBONE = f"local-dir:{SHARED / 'weights' / 'mobilenetv2_100'}"


def inner(image: Image.Image, cut: float) -> Image.Image:
    """Cuts off a part of each side, more of the left than of the right."""
    width, height = image.size
    return image.crop(
        (
            int(0.8 * cut * width),
            int(0.3 * cut * height),
            int((1 - 0.2 * cut) * width),
            int((1 - 0.7 * cut) * height),
        )
    )


CHANGES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "reencoded": lambda image: image,
    "resized": lambda image: image.resize((image.width // 2, image.height // 2)),
    "mirrored": ImageOps.mirror,
    "cropped": lambda image: inner(image, 0.2),
    "brightened": lambda image: ImageEnhance.Brightness(image).enhance(1.2),
    "mirrored and cropped": lambda image: ImageOps.mirror(inner(image, 0.15)),
}


@pytest.fixture(scope="module")
def folder(datasets, tmp_path_factory):
    """Roses and daisies; copies of the first roses among the test images; photos of one bottle or can."""
    root = tmp_path_factory.mktemp("copies")
    for name in ("rose", "daisy"):
        photos = sorted((datasets / "flowers/train" / name).iterdir())
        for number, photo in enumerate(photos[:10]):
            target = root / ("train" if number < 8 else "test") / name / f"{number}.jpg"
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(photo.read_bytes())
    for number, (kind, change) in enumerate(CHANGES.items()):
        with Image.open(root / f"train/rose/{number}.jpg") as image:
            change(image).save(root / f"test/rose/{kind}.jpg", quality=70)
    (root / "train/rose/equal.jpg").write_bytes((root / "train/rose/7.jpg").read_bytes())
    waste = datasets / "waste"
    for photo, target in {
        "train/plastic/plastic152.jpg": "train/rose/plastic152.jpg",
        "train/glass/glass176.jpg": "train/daisy/glass176.jpg",
        "train/metal/metal11.jpg": "train/daisy/metal11.jpg",
        "test/metal/metal221.jpg": "test/daisy/metal221.jpg",
    }.items():
        (root / target).write_bytes((waste / photo).read_bytes())
    return root


@pytest.fixture(scope="module")
def features(folder) -> DatasetFeatures:
    registry = load_registry()
    labelled = read_labelled(recipe_for(folder), registry, Observer())
    return compute_features(labelled, backbone=BACKBONE, registry=registry)


@pytest.fixture(scope="module")
def audit(folder, features) -> Audit:
    return audit_features(features, str(folder), Observer())


def test_every_planted_copy_is_found_and_nothing_else(audit):
    planted = {frozenset({f"train/rose/{i}.jpg", f"test/rose/{kind}.jpg"}) for i, kind in enumerate(CHANGES)}
    equal = frozenset({"train/rose/7.jpg", "train/rose/equal.jpg"})
    two_labels = frozenset({"train/rose/plastic152.jpg", "train/daisy/glass176.jpg"})
    assert {frozenset(pair.images) for pair in audit.pairs} == {*planted, equal, two_labels}
    kinds = {frozenset(pair.images): pair.kind for pair in audit.pairs}
    assert kinds[equal] == "equal" and {kinds[pair] for pair in planted} == {"near"}
    mirrored = {image for pair in audit.pairs if pair.mirrored for image in pair.images}
    assert {image for image in mirrored if "test" in image} == {
        "test/rose/mirrored.jpg",
        "test/rose/mirrored and cropped.jpg",
    }


def test_a_copy_of_a_photo_that_is_there_many_times_is_found(features, audit):
    images, splits = features.labelled.images, features.labelled.splits
    row = [image.sample.id for image in images].index("train/rose/1.jpg")
    again = [replace(images[row], sample=replace(images[row].sample, id=f"again/{n}")) for n in range(25)]
    labelled = replace(features.labelled, images=(*images, *again), splits=(*splits, *[splits[row]] * 25))
    mean = np.concatenate([features.mean, features.mean[[row] * 25]])
    crowded = replace(features, labelled=labelled, mean=mean, labels=np.zeros(len(mean), np.int64))
    copies = find_copies(crowded, nearest(mean, NEIGHBOURS), Observer())
    near, before = ([pair for pair in pairs if pair.kind == "near"] for pairs in (copies.pairs, audit.pairs))
    assert near == before
    assert len(copies.groups[0].images) == 27 and "test/rose/resized.jpg" in copies.groups[0].images


def test_groups_say_whether_they_cross_splits_and_labels(audit):
    groups = {group.images: group for group in audit.groups}
    assert len(groups) == len(CHANGES) + 2
    crossing = groups["test/rose/cropped.jpg", "train/rose/3.jpg"]
    assert crossing.across_splits and not crossing.across_labels
    labels = groups["train/daisy/glass176.jpg", "train/rose/plastic152.jpg"]
    assert labels.across_labels and not labels.across_splits


def test_fixed_splits_hold_copies_together_and_keep_test_images(features, audit, tmp_path):
    path = tmp_path / "splits.csv"
    fixed = tlkit.fix_splits(audit, path)
    header, *rows = (line.split(",") for line in path.read_text().splitlines())
    assert header == ["image", "split"] and len(rows) == len(features)
    split_of = dict(rows)
    assert all(len({split_of[image] for image in group.images}) == 1 for group in audit.groups)
    assert all(split == "test" for image, split in rows if image.startswith("test/"))
    assert {*fixed.moved} == {f"train/rose/{i}.jpg" for i in range(len(CHANGES))}
    assert fixed.counts["test"] == 4 + 6 + 6 + 1 and fixed.counts["val"] >= 2
    assert [group.images for group in fixed.two_labels] == [
        ("train/daisy/glass176.jpg", "train/rose/plastic152.jpg")
    ]
    with pytest.raises(ReportError, match="taken cannot be written: Is a directory"):
        (tmp_path / "taken").mkdir()
        tlkit.fix_splits(audit, tmp_path / "taken")


def test_splits_are_not_fixed_where_a_copy_has_changed_since_the_audit(folder, audit, tmp_path):
    photo = folder / "test/rose/resized.jpg"
    before = photo.read_bytes()
    photo.write_bytes((folder / "train/rose/0.jpg").read_bytes())
    try:
        with pytest.raises(DataError, match=r"test/rose/resized\.jpg has changed since .*: audit it again"):
            tlkit.fix_splits(audit, tmp_path / "splits.csv")
    finally:
        photo.write_bytes(before)
    assert not (tmp_path / "splits.csv").exists()


def test_a_recipe_uses_the_fixed_splits(folder, audit, tmp_path):
    tlkit.fix_splits(audit, tmp_path / "splits.csv")
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(
        f'name = "fixed"\n[data]\nsource = "folder"\nroot = "{folder}"\nsplits = "splits.csv"\n'
        f'[backbone]\nname = "{BACKBONE}"\n[[phase]]\nname = "probe"\n'
    )
    labelled = read_labelled(recipe_for(recipe), load_registry(), Observer())
    written = dict(line.split(",") for line in (tmp_path / "splits.csv").read_text().splitlines()[1:])
    used = {image.sample.id: s for image, s in zip(labelled.images, labelled.splits, strict=True)}
    # of equal bytes with two labels, a run uses none
    contradictory = {"train/rose/plastic152.jpg", "train/daisy/glass176.jpg"}
    assert used == written | dict.fromkeys(contradictory)


def test_leaks_are_copies_in_different_parts(features):
    parts = tuple(split or "" for split in features.labelled.splits)
    leaks = find_leaks(CachedFeatures(features.labelled.images, parts, features.mean))
    assert {"test/rose/reencoded.jpg", "test/rose/brightened.jpg"} <= {
        i for pair in leaks for i in pair.images
    }
    assert all(len({image.split("/")[0] for image in pair.images}) == 2 for pair in leaks)
    together = CachedFeatures(features.labelled.images, ("train",) * len(features), features.mean)
    assert find_leaks(together) == []


def test_an_image_that_was_removed_is_a_clear_error(folder, features):
    photo = folder / "train/rose/0.jpg"
    moved = photo.rename(photo.with_suffix(".moved"))
    try:
        with pytest.raises(DataError, match=r"0\.jpg cannot be read any more"):
            find_copies(features, nearest(features.mean, NEIGHBOURS), Observer())
    finally:
        moved.rename(photo)
