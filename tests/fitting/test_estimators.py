"""scikit-learn estimators: its own checks, what they mean for images, and equality with runs."""

from __future__ import annotations

import csv
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, PredefinedSplit, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import check_estimator

import tlkit
from tlkit.data.images import read_image
from tlkit.experiment import frozen_pass
from tlkit.recipe.recipe import make_recipe

BACKBONE = "vgg16-quarter"


@pytest.fixture(scope="module")
def paths(by_class: Path) -> list[Path]:
    """Twelve photos of cats, then twelve of dogs."""
    return [by_class / kind / f"{number}.jpg" for kind in ("cat", "dog") for number in range(1, 13)]


@pytest.fixture(scope="module")
def labels(paths: list[Path]) -> list[str]:
    return [path.parent.name for path in paths]


@pytest.fixture
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder for all tests of this module, which mostly use the same features."""
    folder = tmp_path_factory.getbasetemp() / "estimators"
    monkeypatch.setenv("TLKIT_CACHE", str(folder))
    return folder


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The numbers of image views that frozen passes compute from now on."""
    numbers: list[int] = []
    extract: Callable[..., Any] = frozen_pass.extract_features

    def counted(jobs: Any, *arguments: Any) -> Any:
        numbers.append(sum(map(len, jobs)))
        return extract(jobs, *arguments)

    monkeypatch.setattr(frozen_pass, "extract_features", counted)
    return numbers


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning")
@pytest.mark.parametrize(
    "head",
    [
        {"name": "probe", "kernel": False},
        "prototype",
        *(pytest.param(head, marks=pytest.mark.slow) for head in ("probe", "knn")),
    ],
    ids=str,
)
def test_the_form_for_arrays_passes_all_checks(head: Any) -> None:
    expected = {"check_class_weight_classifiers": "the mean of a class is the same with any weight"}
    fails = expected if head == "prototype" else {}
    results = check_estimator(tlkit.HeadClassifier(head), expected_failed_checks=fails)
    assert len(results) > 50
    assert {result["check_name"] for result in results if result["status"] == "xfail"} == set(fails)
    assert {result["status"] for result in results} <= {"passed", "skipped", "xfail"}


def test_a_grid_search_computes_features_once(
    paths: list[Path],
    labels: list[str],
    computed: list[int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TLKIT_CACHE", str(tmp_path))
    heads = ["prototype", {"name": "knn", "neighbours": 3}, {"name": "probe", "kernel": False}]
    search = GridSearchCV(tlkit.ImageClassifier(BACKBONE), {"head": heads}, cv=3, error_score="raise")
    search.fit(paths, labels)
    # the first fit computes two folds, the first prediction the third, each image and its mirror image
    assert computed == [2 * 16, 2 * 8]
    assert len(set(search.cv_results_["mean_test_score"])) > 1
    assert search.best_params_["head"] in heads
    assert search.score(paths, labels) >= search.best_score_ - 0.1


def test_cross_val_score_equals_the_folds_of_a_run(by_class: Path, tmp_path: Path) -> None:
    photos = tmp_path / "photos"  # a third as many dogs as cats
    for kind, count in (("cat", 36), ("dog", 12)):
        (photos / kind).mkdir(parents=True)
        for number in range(1, count + 1):
            (photos / kind / f"{number}.jpg").symlink_to(by_class / kind / f"{number}.jpg")
    recipe = make_recipe(
        {
            "name": "folds",
            "data": {"source": "folder", "root": str(photos), "folds": 4},
            "backbone": {"name": BACKBONE},
            "head": {"name": "probe", "kernel": False},
            "training": {"mirror": True, "precision": "float32"},
            "phase": [{"name": "probe"}],
        }
    )
    run = tlkit.run(recipe, out=tmp_path / "run")
    with (run.folder / "splits.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))

    def scores(**options: Any) -> tuple[float, ...]:
        return tuple(
            cross_val_score(
                tlkit.ImageClassifier(BACKBONE, {"name": "probe", "kernel": False}, **options),
                [photos / row["id"] for row in rows],
                [row["label"] for row in rows],
                cv=PredefinedSplit([int(row["folds"]) for row in rows]),
            )
        )

    out_of_fold = run.results.phases[0].out_of_fold
    assert out_of_fold is not None and len(set(out_of_fold.fold_accuracies)) > 1
    assert scores() == out_of_fold.fold_accuracies
    assert scores(class_weight=None) != scores()


def test_images_in_any_form_are_classified_alike(paths: list[Path], labels: list[str]) -> None:
    forms: list[Any] = [
        paths,
        [str(path) for path in paths],
        np.array([str(path) for path in paths]),
        [read_image(path) for path in paths],
        [np.asarray(read_image(path)) for path in paths],
    ]
    fitted = [tlkit.ImageClassifier(BACKBONE, "prototype").fit(form, labels) for form in forms]
    expected = fitted[0].predict_proba(paths)
    for classifier, form in zip(fitted, forms, strict=True):
        np.testing.assert_allclose(classifier.predict_proba(form), expected, atol=1e-5)
    np.testing.assert_allclose(fitted[0].predict_proba(paths[3]), expected[3:4], atol=1e-5)


@pytest.mark.parametrize("kinds", [np.array(["cat", "dog"]), np.array([7, 3]), np.array([False, True])])
def test_labels_come_back_as_they_were(paths: list[Path], kinds: NDArray[Any]) -> None:
    y = np.repeat(kinds, 12)
    classifier = tlkit.ImageClassifier(BACKBONE, "prototype").fit(paths, y)
    assert classifier.classes_.tolist() == sorted(kinds.tolist())
    predicted = classifier.predict(paths)
    assert predicted.dtype == y.dtype and (predicted == y).mean() == classifier.score(paths, y) > 0.6
    rows = classifier.predict_proba(paths)
    assert rows.shape == (24, 2) and (classifier.classes_[rows.argmax(1)] == predicted).all()


def test_fitting_again_cloning_and_pickling(paths: list[Path], labels: list[str]) -> None:
    classifier = tlkit.ImageClassifier(BACKBONE, {"name": "knn", "neighbours": 3}, mirror=False)
    with pytest.raises(NotFittedError):
        classifier.predict(paths)
    assert classifier.fit(paths, labels) is classifier
    rows = classifier.predict_proba(paths)
    assert (classifier.fit(paths, labels).predict_proba(paths) == rows).all()
    assert (pickle.loads(pickle.dumps(classifier)).predict_proba(paths) == rows).all()
    np.testing.assert_allclose(classifier.predict_proba(paths[::-1]), rows[::-1], atol=1e-5)
    copy = clone(classifier)
    assert copy.get_params() == classifier.get_params() and copy.get_params()["head"]["neighbours"] == 3
    with pytest.raises(NotFittedError):
        copy.predict(paths)
    # the parameters are what is used: another head, another result
    assert not np.allclose(copy.set_params(head="prototype").fit(paths, labels).predict_proba(paths), rows)


def test_features_in_a_pipeline(paths: list[Path], labels: list[str], computed: list[int]) -> None:
    pipeline = make_pipeline(tlkit.ImageFeatures(BACKBONE), LogisticRegression())
    pipeline.fit(paths, labels)
    features = tlkit.features(paths, backbone=BACKBONE)
    assert features.shape == (24, 128) and features.dtype == np.float32
    assert (pipeline[-1].predict(features) == pipeline.predict(paths)).all()
    transformer = pipeline[0]
    assert transformer.backbone_ == BACKBONE
    assert transformer.get_feature_names_out()[[0, -1]].tolist() == ["imagefeatures0", "imagefeatures127"]
    np.testing.assert_allclose(clone(transformer).transform(paths[2]), features[2:3], rtol=1e-4)
    # once, by this test or by earlier ones, of which one needs no mirror images
    assert sum(computed) in (0, 24, 48)


def test_an_image_classifier_is_a_head_on_features(paths: list[Path], labels: list[str]) -> None:
    """Of a linear head, the mean over the views of its logits is the logits of the mean features."""
    pipeline = make_pipeline(
        tlkit.ImageFeatures(BACKBONE), tlkit.HeadClassifier({"name": "probe", "kernel": False})
    )
    classifier = tlkit.ImageClassifier(BACKBONE, {"name": "probe", "kernel": False})
    rows = classifier.fit(paths, labels).predict_proba(paths)
    np.testing.assert_allclose(pipeline.fit(paths, labels).predict_proba(paths), rows, atol=1e-4)


def test_a_fitted_classifier_is_saved_as_a_model_folder(
    paths: list[Path], labels: list[str], tmp_path: Path
) -> None:
    classifier = tlkit.ImageClassifier(BACKBONE).fit(paths, labels)
    predictor = tlkit.load(classifier.save(tmp_path / "model"))
    with pytest.raises(tlkit.TlkitError, match="is a model folder, and this takes a run folder"):
        tlkit.card(tmp_path / "model")
    assert predictor.classes == ("cat", "dog")
    np.testing.assert_allclose(predictor.predict_proba(paths), classifier.predict_proba(paths), atol=1e-4)


def test_an_indicator_matrix_makes_a_multilabel_classifier(
    paths: list[Path], labels: list[str], tmp_path: Path
) -> None:
    pandas, first = pytest.importorskip("pandas"), np.arange(24) % 12 < 6
    y = np.column_stack([np.array(labels) == "cat", first]).astype(int)
    classifier = tlkit.ImageClassifier(BACKBONE, {"name": "probe", "kernel": False})
    rows = classifier.fit(paths, y).predict_proba(paths)
    assert classifier.multilabel_ and classifier.classes_.tolist() == [0, 1] and rows.shape == (24, 2)
    predicted = classifier.predict(paths)
    assert (predicted == (rows >= 0.5)).all() and classifier.score(paths, y) == (predicted == y).all(1).mean()
    named = pandas.DataFrame(y, columns=["cat", "first"])
    assert classifier.fit(paths, named).classes_.tolist() == ["cat", "first"]
    assert classifier.fit(paths, csr_matrix(y)).predict(paths).tolist() == predicted.tolist()
    predictor = tlkit.load(classifier.fit(paths, named).save(tmp_path / "model"))
    assert isinstance(predictor, tlkit.MultilabelPredictor) and predictor.classes == ("cat", "first")
    np.testing.assert_allclose(predictor.predict_proba(paths), rows, atol=1e-4)
    assert len(cross_val_score(classifier, paths, y, cv=3)) == 3
    assert not classifier.fit(paths, labels).multilabel_
    with pytest.raises(ValueError, match="MultiLabelBinarizer"):
        classifier.fit(paths, [["cat"], ["cat", "first"]] * 12)
    for values, listed in (([1, 2], "2"), ([-1, 1], "-1"), ([2, 3], "2 and 3")):
        with pytest.raises(ValueError, match=f"has 0 and 1 only, and this one has {listed}$"):
            classifier.fit(paths, np.array(values)[y])
    with pytest.raises(ValueError, match="class_weight of each label cannot be given"):
        tlkit.ImageClassifier(BACKBONE, class_weight={0: 5}).fit(paths, y)
    with pytest.raises(tlkit.PluginError, match="'prototype' is not meant for task = \"multilabel\""):
        tlkit.ImageClassifier(BACKBONE, "prototype").fit(paths, y)


def test_mistakes(paths: list[Path], labels: list[str], tmp_path: Path) -> None:
    classifier = tlkit.ImageClassifier(BACKBONE)
    with pytest.raises(ValueError, match=r"inconsistent numbers of samples: \[24, 3\]"):
        classifier.fit(paths, labels[:3])
    with pytest.raises(ValueError, match="one class, 'cat'"):
        classifier.fit(paths[:3], labels[:3])
    with pytest.raises(ValueError, match="Unknown label type"):
        classifier.fit(paths, np.linspace(0, 1, 24))
    with pytest.raises(tlkit.DataError, match="there are no images"):
        classifier.fit([], [])
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    with pytest.raises(tlkit.DataError, match=r"(?s)broken.jpg: not an image.*image 1: an array of float64"):
        classifier.fit([tmp_path / "broken.jpg", np.zeros((4, 4, 3)), paths[0]], ["a", "b", "a"])
    with pytest.raises(tlkit.PluginError, match="'linear' is trained by gradient steps"):
        tlkit.ImageClassifier(BACKBONE, "linear").fit(paths, labels)
    with pytest.raises(tlkit.PluginError, match="did you mean 'probe'"):
        tlkit.ImageClassifier(BACKBONE, "prob").fit(paths, labels)
    with pytest.raises(tlkit.PluginError, match="head must be a name, or a table"):
        tlkit.ImageClassifier(BACKBONE, {"kernel": False}).fit(paths, labels)
    with pytest.raises(tlkit.TlkitError, match="vgg16-quarter"):
        tlkit.ImageFeatures("vgg16-quarte").fit(paths)


def test_a_file_that_changes_is_read_again(paths: list[Path], tmp_path: Path) -> None:
    image = tmp_path / "image.jpg"
    image.write_bytes(paths[0].read_bytes())
    before = tlkit.features(image, backbone=BACKBONE)
    image.write_bytes(paths[20].read_bytes())
    expected = tlkit.features([paths[0], paths[20]], backbone=BACKBONE)
    np.testing.assert_allclose(before, expected[:1], rtol=1e-4)
    np.testing.assert_allclose(tlkit.features(image, backbone=BACKBONE), expected[1:], rtol=1e-4)
