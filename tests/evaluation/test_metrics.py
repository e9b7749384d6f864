"""Every score against its own formula, written out by hand."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from tlkit.evaluation.metrics import (
    Baselines,
    ClassScores,
    Scores,
    TestScores,
    balanced_accuracy,
    baselines,
    evaluate,
    per_class,
    reject_curve,
    rejected,
    summary,
)

Probabilities = NDArray[np.float64]
Labels = NDArray[np.int64]


def make_predictions(classes: int, n: int = 200) -> tuple[Probabilities, Labels]:
    """Makes predictions that are better than chance, rounded so that some are equal."""
    generator = np.random.default_rng(3)
    labels = generator.integers(classes, size=n)
    logits = generator.normal(size=(n, classes)) + 1.5 * np.eye(classes)[labels]
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    rounded = probabilities.round(2)
    rounded[:, 0] = 1 - rounded[:, 1:].sum(1)
    return rounded, labels


def fraction_of_ordered_pairs(scores: Probabilities, positive: NDArray[np.bool_]) -> float:
    """Returns the fraction of pairs whose positive scores higher than its negative; ties count half."""
    ordered = [
        1.0 if yes > no else 0.5 if yes == no else 0.0 for yes in scores[positive] for no in scores[~positive]
    ]
    return sum(ordered) / len(ordered)


def binned_error(probabilities: Probabilities, labels: Labels) -> float:
    """Returns the expected calibration error with 15 bins, one prediction at a time."""
    bins: dict[int, list[tuple[float, bool]]] = {}
    for row, label in zip(probabilities, labels, strict=True):
        bins.setdefault(min(int(row.max() * 15), 14), []).append((row.max(), row.argmax() == label))
    gaps = [
        len(members)
        * abs(np.mean([confidence for confidence, _ in members]) - np.mean([hit for _, hit in members]))
        for members in bins.values()
    ]
    return float(sum(gaps) / len(labels))


def wilson(correct: int, n: int) -> list[float]:
    z, share = 1.959963984540054, correct / n
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return [middle - half, middle + half]


@pytest.mark.parametrize("classes", [2, 4])
def test_every_score_of_a_test_set(classes: int) -> None:
    probabilities, labels = make_predictions(classes)
    scores = evaluate(probabilities, labels)
    correct = sum(int(row.argmax() == label) for row, label in zip(probabilities, labels, strict=True))
    assert 0.5 * len(labels) < correct < len(labels)
    assert (scores.n, scores.correct, scores.accuracy) == (200, correct, correct / 200)
    assert scores.ci95 == pytest.approx(wilson(correct, 200))
    of_label = [row[label] for row, label in zip(probabilities, labels, strict=True)]
    assert scores.log_loss == pytest.approx(-sum(math.log(max(p, 2.0**-23)) for p in of_label) / 200)
    areas = [fraction_of_ordered_pairs(probabilities[:, label], labels == label) for label in range(classes)]
    expected = areas[1] if classes == 2 else sum(areas) / classes
    assert scores.auroc == pytest.approx(expected, abs=1e-9)
    assert scores.ece == pytest.approx(binned_error(probabilities, labels), abs=1e-9)
    assert scores.confusion_matrix(classes).tolist() == [
        [
            int(((labels == true) & (probabilities.argmax(1) == predicted)).sum())
            for predicted in range(classes)
        ]
        for true in range(classes)
    ]


def test_a_worked_example() -> None:
    probabilities = np.array([[0.9, 0.1], [0.6, 0.4], [0.3, 0.7], [0.8, 0.2]])
    scores = evaluate(probabilities, np.array([0, 0, 1, 1]))
    expected = "n correct accuracy ci95 balanced_accuracy macro_f1 log_loss top5 auroc ece ece_ci95 confusion"
    assert list(scores.model_dump()) == expected.split()
    assert (scores.n, scores.correct, scores.accuracy) == (4, 3, 0.75)
    assert scores.ci95 == pytest.approx((0.3006, 0.9544), abs=1e-4)
    assert scores.log_loss == pytest.approx((-math.log(0.9 * 0.6 * 0.7 * 0.2)) / 4)
    assert scores.auroc == pytest.approx(0.75)  # of four pairs, 0.2 against 0.4 is the wrong way round
    assert scores.ece == pytest.approx((0.1 + 0.4 + 0.3 + 0.8) / 4)
    assert scores.confusion == ((0, 0, 2), (1, 0, 1), (1, 1, 1))


def test_balanced_accuracy_and_macro_f1_count_classes_equally() -> None:
    # of 6 images of class 0, 2 of class 1 and 1 of class 2, class 2 is never predicted
    labels = np.array([0, 0, 0, 0, 0, 0, 1, 1, 2])
    predicted = np.array([0, 0, 0, 0, 0, 1, 1, 0, 0])
    scores = evaluate(np.eye(3)[predicted], labels)
    assert scores.accuracy == pytest.approx(6 / 9)
    assert scores.balanced_accuracy == pytest.approx((5 / 6 + 1 / 2 + 0) / 3)
    assert scores.macro_f1 == pytest.approx((2 * 5 / 13 + 2 * 1 / 4 + 0) / 3)
    assert balanced_accuracy(predicted, labels) == scores.balanced_accuracy


@pytest.mark.filterwarnings("error")
def test_classes_without_an_image_are_left_out_of_both() -> None:
    labels, predicted = np.array([0, 0, 3, 3]), np.array([0, 2, 3, 3])  # class 2 is predicted, class 1 is not
    scores = evaluate(np.eye(4)[predicted], labels)
    assert scores.balanced_accuracy == pytest.approx((1 / 2 + 1) / 2)
    assert scores.macro_f1 == pytest.approx((2 / 3 + 1) / 2)


def test_baselines_are_those_of_predicting_without_looking() -> None:
    expected = Baselines(chance=1 / 3, majority=0.2, majority_class="b")
    assert baselines({"a": 7, "b": 2, "c": 1}, "b") == expected


@pytest.mark.parametrize(
    ("counts", "text"),
    [
        ((9, 3, 0), ""),
        ((10, 3, 0), "The classes are unequal: 10 images of cat, 3 of dog."),
        ((1, 2, 1200), "The classes are unequal: 1,200 images of owl, 1 of cat."),
    ],
)
def test_classes_are_unequal_if_one_is_over_three_times_another(counts: tuple[int, ...], text: str) -> None:
    labels = np.repeat(range(3), counts)
    scores = evaluate(np.eye(3)[labels], labels)
    assert scores.describe_inequality(["cat", "dog", "owl"]) == text
    empty = scores.model_copy(update={"confusion": ()})
    assert empty.describe_inequality(["cat", "dog", "owl"]) == ""


def test_validation_scores_are_the_first_of_the_test_scores() -> None:
    probabilities, labels = make_predictions(3)
    scores = summary(probabilities, labels)
    expected = ["n", "correct", "accuracy", "ci95", "balanced_accuracy", "macro_f1", "log_loss"]
    assert list(scores.model_dump()) == expected
    of_test = evaluate(probabilities, labels)
    assert scores == Scores(**of_test.model_dump(include=set(Scores.model_fields)))


@pytest.mark.parametrize(("classes", "labels"), [(2, [1, 1, 1]), (3, [0, 1, 0])])
def test_auroc_is_null_where_a_class_is_missing(classes: int, labels: list[int]) -> None:
    probabilities = np.full((3, classes), 1 / classes)
    scores = evaluate(probabilities, np.array(labels))
    assert scores.auroc is None
    assert '"auroc":null' in scores.model_dump_json()


def test_scores_are_read_from_json_as_they_were_written() -> None:
    scores = evaluate(*make_predictions(3))
    assert TestScores.model_validate_json(scores.model_dump_json(), strict=True) == scores


def test_of_equally_probable_classes_the_first_is_predicted() -> None:
    tied = np.array([[0.5, 0.5], [0.5, 0.5]])
    assert evaluate(tied, np.array([0, 1])).confusion == ((0, 0, 1), (1, 0, 1))


def test_probabilities_of_nought_and_one_and_beside_them() -> None:
    certain = np.array([[0.0, 1.0], [1.0 + 1e-12, -1e-12], [1.0, 0.0]])
    scores = evaluate(certain, np.array([1, 0, 1]))
    assert scores.log_loss == pytest.approx(23 * math.log(2) / 3, rel=1e-6)
    assert scores.ece == pytest.approx(1 / 3)
    assert scores.auroc == pytest.approx(0.75)


def test_the_interval_of_an_accuracy_of_nought_or_one_is_not_empty() -> None:
    certain = np.array([[1.0, 0.0]] * 10)
    assert summary(certain, np.zeros(10, dtype=np.int64)).ci95 == pytest.approx(wilson(10, 10))
    assert summary(certain, np.ones(10, dtype=np.int64)).ci95 == pytest.approx(wilson(0, 10))


def test_a_reject_curve_has_the_accuracy_above_every_threshold() -> None:
    confidence = np.array([0.9, 0.6, 0.8, 0.6, 0.7])
    correct = np.array([True, False, True, True, False])
    curve = reject_curve(confidence, correct)
    assert curve.thresholds.tolist() == [0.9, 0.8, 0.7, 0.6]  # two images of 0.6 are accepted together
    assert curve.accepted.tolist() == [1, 2, 3, 5]
    assert curve.coverage == pytest.approx([0.2, 0.4, 0.6, 1.0])
    assert curve.accuracy == pytest.approx([1.0, 1.0, 2 / 3, 0.6])


def test_a_reject_curve_agrees_with_the_counts_of_rejected_images() -> None:
    probabilities, labels = make_predictions(3)
    confidence, correct = probabilities.max(1), probabilities.argmax(1) == labels
    curve = reject_curve(confidence, correct)
    assert 10 < len(curve.thresholds) < len(labels)  # some are equal
    for threshold, accepted, accuracy in zip(curve.thresholds, curve.accepted, curve.accuracy, strict=True):
        expected = rejected(confidence, correct, threshold)
        assert (len(labels) - expected.n, expected.accuracy_of_others) == (accepted, pytest.approx(accuracy))
    assert curve.coverage[-1] == 1 and curve.accuracy[-1] == correct.mean()


def class_scores(predicted: Sequence[int], labels: Sequence[int], classes: str) -> dict[str, ClassScores]:
    return per_class(np.eye(len(classes))[list(predicted)], np.array(labels), list(classes))


def test_scores_of_each_class() -> None:
    scores = class_scores([0, 0, 0, 1, 1, 2], [0, 0, 1, 1, 2, 2], "abc")
    assert list(scores) == ["a", "b", "c"]
    assert scores["a"].model_dump() == pytest.approx({"n": 2, "precision": 2 / 3, "recall": 1.0, "f1": 0.8})
    assert scores["b"].model_dump() == pytest.approx({"n": 2, "precision": 0.5, "recall": 0.5, "f1": 0.5})
    assert scores["c"].model_dump() == pytest.approx({"n": 2, "precision": 1.0, "recall": 0.5, "f1": 2 / 3})


def test_undefined_scores_of_a_class_are_none() -> None:
    scores = class_scores([0, 0, 1], [0, 2, 0], "abcd")
    assert scores["a"] == ClassScores(n=2, precision=0.5, recall=0.5, f1=0.5)
    assert scores["b"] == ClassScores(n=0, precision=0.0, recall=None, f1=0.0)  # predicted, without an image
    assert scores["c"] == ClassScores(n=1, precision=None, recall=0.0, f1=0.0)  # never predicted
    assert scores["d"] == ClassScores(n=0, precision=None, recall=None, f1=None)  # neither


def test_balanced_accuracy_is_the_mean_recall_of_the_classes_with_images() -> None:
    labels = np.array([0, 0, 0, 1, 1, 2])
    assert balanced_accuracy(np.array([0, 0, 1, 1, 0, 2]), labels) == pytest.approx((2 / 3 + 1 / 2 + 1) / 3)
    # a class without images may be predicted; scikit-learn would warn
    assert balanced_accuracy(np.array([0, 0, 0, 3, 3, 3]), labels) == pytest.approx(1 / 3)


def test_of_many_classes_the_five_most_probable_are_counted_too() -> None:
    classes = 30
    probabilities, labels = make_predictions(classes)
    scores = evaluate(probabilities, labels)
    # sorted by probability, and of equally probable classes the first comes first
    first = [sorted(range(classes), key=lambda label: (-row[label], label))[:5] for row in probabilities]
    assert scores.top5 == np.mean([label in five for label, five in zip(labels, first, strict=True)])
    assert scores.accuracy < scores.top5 < 1
    assert evaluate(*make_predictions(5)).top5 is None


def test_results_of_two_thousand_classes_are_small() -> None:
    labels = np.arange(2000).repeat(2)
    scores = evaluate(np.eye(2000)[(labels + np.arange(4000) % 2) % 2000], labels)
    assert scores.n == 4000 and scores.top5 is not None
    assert len(scores.model_dump_json(indent=1)) < 250_000
    assert scores.confusion_matrix(2000).sum() == 4000


def test_the_most_frequent_confusions_come_first() -> None:
    labels, predicted = np.array([0, 0, 1, 1, 1, 2]), np.array([1, 0, 0, 0, 1, 2])
    assert evaluate(np.eye(3)[predicted], labels).most_confused(5) == [(1, 0, 2), (0, 1, 1)]
