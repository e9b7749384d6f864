"""Learning curves: what is measured, what is extrapolated, and what is said about it."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from unittest import mock

import numpy as np
import pytest

from tlkit.analysis.curve import LearningCurve, measure_curve
from tlkit.analysis.features import (
    DatasetFeatures,
    LabelledImages,
    compute_features,
    read_labelled,
)
from tlkit.analysis.learning import HALF, Learner
from tlkit.analysis.power_law import fit_power_law
from tlkit.analysis.targets import recipe_for
from tlkit.cli.app import main
from tlkit.errors import DataError
from tlkit.experiment.observer import Observer
from tlkit.plugins.loader import load_registry
from tlkit.reporting.curve_section import make_curve_section, write_curve
from tlkit.reporting.pictures import Album

SHARED = Path(__file__).parents[3] / "shared"
BACKBONE = f"local-dir:{SHARED / 'weights' / 'mobilenetv2_100'}"
#: How far apart classes lie: noise has variance 1 in each of 20 dimensions.
DISTANCE = 0.55


def drawn(per_class: list[int], seed: int = 0, distance: float = DISTANCE):
    """Features of overlapping classes around fixed centres, and labels."""
    centres = distance * np.random.default_rng(7).normal(size=(len(per_class), 20))
    labels = np.repeat(np.arange(len(per_class)), per_class)
    noise = np.random.default_rng(seed).normal(size=(len(labels), 20))
    return (centres[labels] + noise).astype(np.float32), labels


@pytest.fixture(scope="module")
def photos(datasets, tmp_path_factory):
    """Twelve photos of each of two flowers, one of them twice."""
    root = tmp_path_factory.mktemp("flowers")
    for name in ("rose", "daisy"):
        (root / name).mkdir()
        for photo in sorted((datasets / "flowers/train" / name).iterdir())[:12]:
            (root / name / photo.name).write_bytes(photo.read_bytes())
    first = min((root / "rose").iterdir())
    (root / "rose" / "copy.jpg").write_bytes(first.read_bytes())
    return root


@pytest.fixture(scope="module")
def features(photos) -> DatasetFeatures:
    registry = load_registry()
    labelled = read_labelled(recipe_for(photos), registry, Observer())
    return compute_features(labelled, backbone=BACKBONE, registry=registry)


def with_arrays(features: DatasetFeatures, values, labels, splits) -> DatasetFeatures:
    """Replaces features and labels; the images are told apart by their hashes alone."""
    image = features.labelled.images[0]
    images = tuple(replace(image, sha256=str(row)) for row in range(len(labels)))
    classes = tuple("abcdef"[: labels.max() + 1])
    labelled: LabelledImages = replace(
        features.labelled, images=images, splits=tuple(splits), classes=classes
    )
    return replace(features, labelled=labelled, labels=labels, mean=values)


def test_subsets_are_nested_and_stratified_and_never_hold_what_is_tested():
    values, labels = drawn([60, 30])
    learner = Learner(values, labels, np.arange(len(labels)), None)
    fits = learner._fits
    for order, test in zip(fits.orders, fits.tests, strict=True):
        assert not set(order) & set(test)
        for size in learner.sizes:
            assert abs((labels[order[:size]] == 1).mean() - 1 / 3) <= 1.5 / size
    assert learner.sizes[0] == 81 and abs(learner.sizes[HALF] - 40.5) <= 0.5
    # each draw tests every image once
    for draw in (0, 1):
        tested = [test for test, of in zip(fits.tests, fits.draws, strict=True) if of == draw]
        assert sorted(np.concatenate(tested)) == list(range(90))


def test_a_known_power_law_is_found_and_its_interval_widens():
    images = np.array([1600, 800, 400, 200, 100])
    errors = 0.05 + 0.9 * images**-0.4
    law = fit_power_law(images, errors, np.eye(5) * 0.002**2)
    for factor in (2, 4):
        accuracy, low, high = law.interval(1600 * factor)
        truth = 0.95 - 0.9 * (1600 * factor) ** -0.4
        assert low < truth < high and abs(accuracy - truth) < 0.006
    widths = [high - low for _, low, high in (law.interval(n) for n in (1600, 3200, 6400))]
    assert widths == sorted(widths)
    assert law.probability(0.0, 1600) == pytest.approx(1) and law.probability(0.999, 6400) < 0.01


def test_the_forecast_holds_what_four_times_the_images_reach(features):
    labels_of = [300, 300, 300]
    values, labels = drawn(labels_of)
    quarter = np.concatenate([np.flatnonzero(labels == label)[:75] for label in range(3)])
    result = measure_curve(
        with_arrays(features, values[quarter], labels[quarter], [None] * len(quarter)), goal=0.99
    )
    truth = 1 - Learner(values, labels, np.arange(len(labels)), None).measure(lambda _: None).errors[0]
    now, double, largest = result.expected
    assert [point.images for point in result.expected] == [225, 450, 900]
    assert now.accuracy < double.accuracy < largest.accuracy
    assert largest.low < truth < largest.high
    assert result.measured_on == "folds" and result.tested == 225 and result.draws == 20
    text = " ".join(result.sentences())
    assert "With 2 times the images (450) expect 0." in text
    assert "0.99 is not likely with 4 times the images (900)" in text


def test_test_images_are_measured_on_and_not_trained_on(features):
    values, labels = drawn([60, 60])
    splits = ["test" if row % 3 == 0 else "train" for row in range(120)]
    result = measure_curve(with_arrays(features, values, labels, splits), goal=0.5)
    assert result.measured_on == "test" and result.tested == 40
    assert result.images == 80 == result.measured[-1].images
    # wrong labels of test images are wrong answers, whatever the curve
    flipped = np.where([split == "test" for split in splits], 1 - labels, labels)
    wrong = measure_curve(with_arrays(features, values, flipped, splits))
    assert wrong.measured[-1].accuracy == pytest.approx(1 - result.measured[-1].accuracy)
    assert "0.5 is likely with the images at hand, and nearly certain" in " ".join(result.sentences())


def test_the_class_that_helps_most_is_named_only_where_it_is_significant(features):
    # classes alike: nothing to say
    values, labels = drawn([80, 80, 80], distance=3)
    alike = measure_curve(with_arrays(features, values, labels, [None] * len(labels)))
    assert alike.helps_most is None and "No class stands out" in alike.sentences()[-1]
    # a few images of a class that lies in many places, beside classes that are easy to tell
    generator = np.random.default_rng(3)
    centres = 2.5 * generator.normal(size=(30, 20))
    spread = centres[generator.integers(30, size=60)] + 0.3 * generator.normal(size=(60, 20))
    ring = 0.7 * generator.normal(size=(400, 20)) + np.eye(20)[0] * 3
    values = np.concatenate([spread, ring, 0.7 * generator.normal(size=(400, 20)) - np.eye(20)[0] * 3])
    labels = np.repeat([0, 1, 2], [60, 400, 400])
    result = measure_curve(with_arrays(features, values.astype(np.float32), labels, [None] * len(labels)))
    assert result.gains[0].name == "a" and result.helps_most == result.gains[0]
    assert "More images of `a` help most" in result.sentences()[-1]


def test_the_same_images_give_the_same_curve_and_copies_count_once(features):
    result = measure_curve(features)
    assert result == measure_curve(features)
    assert result.classes == {"daisy": 12, "rose": 12} and result.images == 24


def test_too_few_images_are_a_clear_error(features):
    values, labels = drawn([5, 5])
    with pytest.raises(
        DataError, match="10 training images in 2 classes: a learning curve needs two classes, and 6"
    ):
        measure_curve(with_arrays(features, values, labels, [None] * 10))


@pytest.mark.usefixtures("features", "shared_cache")
def test_the_command_writes_the_curve_its_chart_and_the_report_shows_it(
    photos, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    command = ["tlkit", "curve", str(photos), "--backbone", BACKBONE, "--goal", "0.7"]
    with mock.patch.object(sys, "argv", command), pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
    printed = capsys.readouterr().out
    assert "expected with 4 times" in printed and "0.7 is likely" in printed
    stored = LearningCurve.model_validate_json((tmp_path / "curve/curve.json").read_text(), strict=True)
    assert stored.images == 24
    assert "<svg" in (tmp_path / "curve/curve.svg").read_text()
    with mock.patch.object(sys, "argv", [*command, "--json"]), pytest.raises(SystemExit):
        main()
    assert json.loads(capsys.readouterr().out)["expected"][2]["images"] == 96
    (tmp_path / "pictures").mkdir()
    album = Album(tmp_path / "pictures")
    section = make_curve_section(tmp_path / "curve", album)
    assert section is not None and section.curve == stored
    assert make_curve_section(tmp_path, album) is None
    write_curve(stored, tmp_path / "again")
    assert (tmp_path / "again/curve.json").read_bytes() == (tmp_path / "curve/curve.json").read_bytes()
