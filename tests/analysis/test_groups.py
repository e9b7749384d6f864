"""Images of one group, such as a burst, are never on both sides of a fold, whatever the question."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import tlkit
from tlkit.analysis import choose as choosing
from tlkit.analysis.audit import audit_features
from tlkit.analysis.audit_file import Audit
from tlkit.analysis.choose import choose
from tlkit.analysis.curve import measure_curve
from tlkit.analysis.features import DatasetFeatures, compute_features, read_labelled
from tlkit.analysis.folds import draw_folds
from tlkit.analysis.targets import recipe_for
from tlkit.data.folds import ALWAYS_TRAINED
from tlkit.errors import DataError
from tlkit.experiment.observer import Observer
from tlkit.plugins.loader import load_registry
from tlkit.utils import logistic

from .test_features import BACKBONE

BURSTS, SHOTS = 12, 4


@pytest.fixture(scope="module")
def table(datasets: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Bursts of roses, each of a size of its own, whose labels mean nothing."""
    root = tmp_path_factory.mktemp("bursts")
    labels = np.random.default_rng(0).permutation(["red", "white"] * (BURSTS // 2))
    rows = []
    for burst, photo in enumerate(sorted((datasets / "flowers/train/rose").iterdir())[:BURSTS]):
        with Image.open(photo) as image:
            resized = image.convert("RGB").resize((100 + 5 * burst, 90))
        for shot in range(SHOTS):
            name = f"{burst}-{shot}.jpg"
            resized.rotate(shot).save(root / name, quality=90 - shot)
            rows.append((name, labels[burst], f"burst {burst}"))
    with (root / "bursts.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("path", "label", "group"), *rows])
    return root / "bursts.csv"


@pytest.fixture(scope="module")
def features(table: Path) -> DatasetFeatures:
    registry = load_registry()
    labelled = read_labelled(recipe_for(table), registry, Observer())
    return compute_features(labelled, backbone=BACKBONE, registry=registry)


@pytest.fixture(scope="module")
def ungrouped(features: DatasetFeatures) -> DatasetFeatures:
    """The same images, and no word of what belongs together."""
    labelled = features.labelled
    alone = [replace(image, sample=replace(image.sample, group=None)) for image in labelled.images]
    return replace(features, labelled=replace(labelled, images=tuple(alone)))


@pytest.fixture(scope="module")
def audit(features: DatasetFeatures, table: Path) -> Audit:
    return audit_features(features, str(table), Observer())


def test_an_audit_predicts_no_image_from_its_group(audit: Audit, ungrouped: DatasetFeatures) -> None:
    leaking = audit_features(ungrouped, "bursts", Observer())
    assert leaking.accuracy is not None and leaking.accuracy > 0.95
    assert "size" in [shortcut.property for shortcut in leaking.shortcuts]
    assert audit.accuracy is not None and audit.accuracy < 0.75
    assert audit.shortcuts == ()


def test_a_curve_is_not_measured_on_groups_that_were_trained_on(
    features: DatasetFeatures, ungrouped: DatasetFeatures
) -> None:
    assert measure_curve(ungrouped).measured[-1].accuracy > 0.95
    assert measure_curve(features).measured[-1].accuracy < 0.75
    images = [
        replace(image, sample=replace(image.sample, group=str(image.sample.label)))
        for image in features.labelled.images
    ]
    with pytest.raises(DataError, match="no class has two groups of images"):
        measure_curve(replace(features, labelled=replace(features.labelled, images=tuple(images))))


def test_backbones_are_not_compared_on_groups_that_were_trained_on(
    table: Path, features: DatasetFeatures, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choosing, "TIMED_IMAGES", 2)
    assert choose(table, backbones=[BACKBONE]).best.scores.accuracy < 0.75
    alone, labels = np.arange(len(features)), features.labels
    leaking = features.probes.out_of_fold(features.mean, labels, alone, kernel=False)
    assert (leaking.argmax(1) == labels).mean() > 0.95
    rows = list(csv.reader(table.read_text().splitlines()))
    with (table.parent / "two.csv").open("w", newline="") as file:
        csv.writer(file).writerows([rows[0], *((path, label, label) for path, label, _ in rows[1:])])
    with pytest.raises(DataError, match=r"too few groups of images to compare .*\(red 1, white 1\)"):
        choose(table.parent / "two.csv", backbones=[BACKBONE])


def test_groups_that_a_recipe_names_are_kept_together(table: Path, features: DatasetFeatures) -> None:
    recipe = table.parent / "recipe.toml"
    recipe.write_text(
        'name = "bursts"\n[data]\nsource = { name = "csv", file = "alone.csv" }\nroot = "."\nfolds = 5\n'
        f'group = "^([0-9]+)-"\n[backbone]\nname = "{BACKBONE}"\n[[phase]]\nname = "probe"\n'
    )
    (table.parent / "alone.csv").write_text(
        "\n".join(line.rpartition(",")[0] for line in table.read_text().splitlines())
    )
    labelled = read_labelled(recipe_for(recipe), load_registry(), Observer())
    by_id = {
        image.sample.id: group for image, group in zip(labelled.images, labelled.groups.tolist(), strict=True)
    }
    assert sorted(np.bincount(labelled.groups)) == [SHOTS] * BURSTS
    assert all(by_id[f"{burst}-0.jpg"] == by_id[f"{burst}-3.jpg"] for burst in range(BURSTS))


def test_fixed_splits_keep_groups_together(audit: Audit, tmp_path: Path) -> None:
    tlkit.fix_splits(audit, tmp_path / "splits.csv")
    splits_of: dict[str, set[str]] = {}
    for row in csv.DictReader((tmp_path / "splits.csv").read_text().splitlines()):
        splits_of.setdefault(row["image"].partition("-")[0], set()).add(row["split"])
    assert len(splits_of) == BURSTS and all(len(splits) == 1 for splits in splits_of.values())
    assert set.union(*splits_of.values()) == {"train", "val", "test"}


def test_folds_hold_whole_groups_and_a_class_of_one_group_is_always_trained_on() -> None:
    labels = np.repeat([0, 1, 2], [30, 30, 6])
    groups = np.concatenate([np.arange(60) // 3, np.full(6, 20)])
    folds = draw_folds(labels, groups, 5, np.random.default_rng(0))
    assert all(len(set(folds[groups == group])) == 1 for group in range(21))
    assert (folds[60:] == ALWAYS_TRAINED).all()
    for label in (0, 1):
        assert sorted(np.bincount(folds[labels == label], minlength=5)) == [6] * 5
    # no fold where no class can be divided, and fewer where none has as many groups
    assert (draw_folds(labels, labels, 5, np.random.default_rng(0)) == ALWAYS_TRAINED).all()
    few = draw_folds(labels[:60], np.arange(60) // 10, 5, np.random.default_rng(0))
    assert set(few) == {0, 1, 2}


def test_images_that_stand_alone_are_divided_as_before() -> None:
    labels = np.repeat([0, 1], [13, 8])
    folds = draw_folds(labels, np.arange(21), 5, np.random.default_rng(0))
    np.testing.assert_array_equal(folds, logistic.draw_folds(labels, 5, np.random.default_rng(0)))
