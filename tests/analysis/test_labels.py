"""What is said about labels: errors, confusions, strange images and series, from real photos."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tlkit.analysis.confusions import find_confusions, small_classes
from tlkit.analysis.features import compute_features, read_labelled
from tlkit.analysis.label_errors import find_cut, find_label_errors, score_labels
from tlkit.analysis.neighbours import nearest
from tlkit.analysis.out_of_fold import OutOfFold
from tlkit.analysis.outliers import find_unlike
from tlkit.analysis.series import find_series
from tlkit.analysis.targets import recipe_for
from tlkit.experiment.observer import Observer
from tlkit.plugins.loader import load_registry

from .test_features import BACKBONE


@pytest.fixture(scope="module")
def stranger(datasets):
    return min((datasets / "flowers/train/tulip").iterdir())


@pytest.fixture(scope="module")
def features(datasets, real_photos, stranger, tmp_path_factory):
    """36 cats, 36 dogs, a flower among the dogs; 12 photos of paper, two of one sheet in different splits."""
    root = tmp_path_factory.mktemp("photos")
    papers = datasets / "waste"
    photos = {}
    for kind in ("cat", "dog"):
        files = sorted(real_photos.glob(f"{kind}.*"))
        photos[f"train/{kind}"], photos[f"test/{kind}"] = files[:34], files[34:36]
    photos["train/dog"].append(stranger)
    photos["train/paper"] = [
        *sorted((papers / "train/paper").iterdir())[:10],
        papers / "train/paper/paper136.jpg",
    ]
    photos["test/paper"] = [papers / "test/paper/paper148.jpg"]
    for folder, files in photos.items():
        (root / folder).mkdir(parents=True)
        for file in files:
            (root / folder / file.name).write_bytes(file.read_bytes())
    registry = load_registry()
    labelled = read_labelled(recipe_for(root), registry, Observer())
    return compute_features(labelled, backbone=BACKBONE, registry=registry)


@pytest.fixture(scope="module")
def neighbours(features):
    return nearest(features.mean, 15)


def find(features, neighbours):
    out_of_fold = OutOfFold.of(
        features.mean, features.labels, len(features.labelled.classes), np.arange(len(features))
    )
    return find_label_errors(features, neighbours, out_of_fold, Observer()), out_of_fold


def test_wrong_labels_are_found_with_the_right_ones_suggested(features, neighbours):
    labels = features.labels.copy()
    wrong = [*np.flatnonzero(labels == 0)[[3, 17]], *np.flatnonzero(labels == 1)[[4, 20]]]
    labels[wrong] = 1 - labels[wrong]
    errors, _ = find(replace(features, labels=labels), neighbours)
    ids = {features.labelled.images[index].sample.id: index for index in wrong}
    planted = [suspect for suspect in errors.suspects if suspect.image in ids]
    assert len(planted) >= 3 and len(errors.suspects) <= 8
    names = features.labelled.classes
    for suspect in planted:
        assert suspect.suggested == names[features.labels[ids[suspect.image]]] != suspect.label
        assert suspect.probability < 0.5 and suspect.score > 0
    assert [suspect.score for suspect in errors.suspects] == sorted(
        (suspect.score for suspect in errors.suspects), reverse=True
    )
    assert 0.3 < errors.precision <= 1 and 0.3 < errors.recall <= 1
    assert "planted errors" in errors.method


def test_few_images_get_suspects_but_no_estimate(features):
    few = np.concatenate([np.flatnonzero(features.labels == label)[3:11] for label in (0, 1)])
    labels = features.labels[few]
    labels[2] = 1
    images = tuple(features.labelled.images[index] for index in few)
    small = replace(
        features,
        labels=labels,
        mean=features.mean[few],
        labelled=replace(features.labelled, images=images, classes=("cat", "dog")),
    )
    errors, _ = find(small, nearest(small.mean, 15))
    assert errors.precision is errors.recall is None
    assert "16 images of classes with two or more are too few" in errors.method
    assert images[2].sample.id in [suspect.image for suspect in errors.suspects]


def test_one_image_per_class_is_never_a_suspect(features):
    two = np.array([list(features.labels).index(label) for label in (0, 1)])
    out_of_fold = OutOfFold.of(features.mean[two], np.array([0, 1]), 2, np.arange(2))
    assert np.isnan(out_of_fold.log_probabilities).all() and (out_of_fold.predicted == -1).all()
    scores, _ = score_labels(np.array([0, 1]), out_of_fold.log_probabilities, nearest(features.mean[two], 15))
    assert (scores == -np.inf).all()


def test_estimates_are_near_the_truth_where_it_is_known():
    """Three classes that overlap, of which a twelfth is labelled wrongly."""
    generator = np.random.default_rng(0)
    truth = generator.integers(0, 3, 900)
    rows = (generator.normal(size=(3, 24))[truth] * 0.8 + generator.normal(size=(900, 24))).astype(np.float32)
    wrong = generator.choice(900, 75, replace=False)
    labels = truth.copy()
    labels[wrong] = (labels[wrong] + generator.integers(1, 3, 75)) % 3
    among = nearest(rows, 15)
    out_of_fold = OutOfFold.of(rows, labels, 3, np.arange(900))
    scores, suggested = score_labels(labels, out_of_fold.log_probabilities, among)
    cut = find_cut(labels, among, out_of_fold, Observer())
    listed = scores >= cut.score
    hit = np.isin(np.flatnonzero(listed), wrong)
    assert cut.precision == pytest.approx(hit.mean(), abs=0.12)
    assert cut.recall == pytest.approx(hit.sum() / 75, abs=0.12)
    assert (suggested[listed][hit] == truth[listed][hit]).mean() > 0.9


def test_out_of_fold_predictions_are_of_probes_that_did_not_see_the_image(features):
    labels = features.labels.copy()
    before = OutOfFold.of(features.mean, labels, 3, np.arange(len(labels)))
    assert (before.predicted == labels).mean() > 0.9
    cat = int(np.flatnonzero(before.predicted == 0)[0])
    labels[cat] = 1
    again = before.with_labels(labels, np.random.default_rng(0))
    assert again[cat].argmax() == 0


def test_strange_images_are_listed_first(features, stranger):
    animals = np.flatnonzero(features.labels < 2)
    images = tuple(features.labelled.images[index] for index in animals)
    few = replace(
        features,
        labels=features.labels[animals],
        mean=features.mean[animals],
        labelled=replace(features.labelled, images=images),
    )
    unlike = find_unlike(few, nearest(few.mean, 15))
    assert (unlike[0].image, unlike[0].label) == (f"train/dog/{stranger.name}", "dog")
    assert len(unlike) <= 4


def test_photos_of_one_object_in_different_splits_are_a_series(features, neighbours):
    (series,) = find_series(features, neighbours)
    assert set(series.images) == {"train/paper/paper136.jpg", "test/paper/paper148.jpg"}
    assert find_series(features, neighbours, [series.images[::-1]]) == ()
    together = replace(features.labelled, splits=("train",) * len(features))
    assert find_series(replace(features, labelled=together), neighbours) == ()


def test_pairs_of_classes_that_are_confused():
    labels = np.repeat([0, 1, 2], 20)
    predicted = labels.copy()
    predicted[:3], predicted[20], predicted[40:42], predicted[45] = 1, 0, 0, -1
    (pair,) = find_confusions(labels, predicted, ("cat", "dog", "paper"))
    assert (pair.classes, pair.confused, pair.images) == (("cat", "dog"), 4, 40)
    assert small_classes({"cat": 4, "dog": 5}) == ("cat",)
