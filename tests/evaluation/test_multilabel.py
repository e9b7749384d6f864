"""Scores of several labels per image: against scikit-learn's, and intervals that hold the truth."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, f1_score

from tlkit.errors import DataError
from tlkit.evaluation.multilabel import (
    _Ranked,
    choose_thresholds,
    evaluate_labels,
    label_probabilities,
    mean_average_precision,
)

CLASSES = ("a", "b", "c")
Drawn = tuple[NDArray[np.float64], NDArray[np.int64]]


def draw(count: int, seed: int = 0) -> Drawn:
    """Returns probabilities, with ties, and labels of three classes."""
    generator = np.random.default_rng(seed)
    labels = (generator.random((count, 3)) < (0.5, 0.2, 0.1)).astype(np.int64)
    probabilities = 1 / (1 + np.exp(-(2.0 * labels - 1 + generator.normal(size=labels.shape))))
    return probabilities.round(2), labels


def test_scores_are_those_of_scikit_learn() -> None:
    probabilities, labels = draw(300)
    thresholds = np.array([0.4, 0.5, 0.9])
    scores = evaluate_labels(probabilities, labels, CLASSES, thresholds)
    answers = probabilities >= thresholds
    precision = average_precision_score(labels, probabilities, average="macro")
    assert scores.mean_average_precision.value == pytest.approx(precision)
    assert mean_average_precision(probabilities, labels) == pytest.approx(precision)
    assert scores.macro_f1.value == pytest.approx(f1_score(labels, answers, average="macro"))
    assert scores.micro_f1.value == pytest.approx(f1_score(labels, answers, average="micro"))
    assert [row.positives for row in scores.per_class.values()] == labels.sum(0).tolist()
    assert scores.chance == pytest.approx(labels.mean())
    for estimate in (scores.mean_average_precision, scores.macro_f1, scores.micro_f1):
        low, high = estimate.ci95
        assert low < estimate.value < high and high - low < 0.2


def test_a_bootstrap_sample_has_scikit_learns_average_precision() -> None:
    probabilities, labels = draw(120)
    weights = np.random.default_rng(1).multinomial(120, np.full(120, 1 / 120), size=4).astype(float)
    ranked = _Ranked.of(probabilities[:, 1], labels[:, 1])
    computed = ranked.average_precision(weights.T.astype(np.float32))
    expected = [
        average_precision_score(labels[:, 1], probabilities[:, 1], sample_weight=row) for row in weights
    ]
    assert computed == pytest.approx(expected)


def test_thresholds_have_the_highest_f1() -> None:
    probabilities, labels = draw(200)
    thresholds = choose_thresholds(probabilities, labels)
    for column, threshold in enumerate(thresholds):
        candidates = [
            f1_score(labels[:, column], probabilities[:, column] >= value)
            for value in np.unique(probabilities)
        ]
        best = f1_score(labels[:, column], probabilities[:, column] >= threshold)
        assert best == pytest.approx(max(candidates))
        assert threshold not in probabilities[:, column]


def test_a_class_that_no_image_has_is_not_scored() -> None:
    probabilities, labels = draw(100)
    labels[:, 2] = 0
    thresholds = choose_thresholds(probabilities, labels)
    assert thresholds[2] == 0.5
    scores = evaluate_labels(probabilities, labels, CLASSES, thresholds)
    empty = scores.per_class["c"]
    assert (empty.positives, empty.average_precision) == (0, None)
    expected = np.mean([average_precision_score(labels[:, k], probabilities[:, k]) for k in (0, 1)])
    assert scores.mean_average_precision.value == pytest.approx(expected)
    with pytest.raises(DataError, match="no image has a label: nothing can be measured"):
        evaluate_labels(probabilities, np.zeros_like(labels), CLASSES, thresholds)


def test_perfect_predictions_have_a_score_of_one() -> None:
    generator = np.random.default_rng(0)
    for count in range(40, 80):
        labels = (generator.random((count, 3)) < 0.3).astype(np.int64)
        labels[0] = 1
        probabilities = (labels + generator.random(labels.shape)) / 2
        scores = evaluate_labels(probabilities, labels, CLASSES, np.array([0.5] * 3))
        assert scores.mean_average_precision.value == pytest.approx(1) and scores.micro_f1.value == 1
        assert scores.mean_average_precision.ci95[1] <= 1


def test_fewer_independent_images_have_wider_intervals() -> None:
    probabilities, labels = draw(300)
    thresholds = choose_thresholds(probabilities, labels)
    plain, fewer = (
        evaluate_labels(probabilities, labels, CLASSES, thresholds, independent=independent)
        for independent in (None, 100)
    )
    widths = [scores.macro_f1.ci95[1] - scores.macro_f1.ci95[0] for scores in (plain, fewer)]
    assert widths[1] > 1.3 * widths[0]


def test_intervals_of_few_images_are_honest() -> None:
    """Of perfect predictions, the bootstrap alone has an interval without a width."""
    labels = np.array([[1, 0], [1, 1], [0, 0], [0, 1]])
    for repeats, lowest in ((1, (0.3, 0.6)), (10, (0.85, 0.95))):
        probabilities = np.tile(labels, (repeats, 1)) * 0.8 + 0.1
        scores = evaluate_labels(probabilities, np.tile(labels, (repeats, 1)), ("a", "b"), np.full(2, 0.5))
        for estimate in (scores.mean_average_precision, scores.macro_f1, scores.micro_f1):
            assert estimate.value == estimate.ci95[1] == 1 and lowest[0] < estimate.ci95[0] < lowest[1]


def test_intervals_hold_the_truth_of_few_images() -> None:
    """Of these, percentiles of the bootstrap hold it in a third."""
    generator, held = np.random.default_rng(0), 0
    for _ in range(40):
        labels = (generator.random((20, 2)) < (0.5, 0.3)).astype(np.int64)
        probabilities = label_probabilities((labels - 0.5) * (4.0, 3.5) + generator.normal(size=labels.shape))
        scores = evaluate_labels(probabilities, labels, ("a", "b"), np.full(2, 0.5))
        low, high = scores.mean_average_precision.ci95
        held += low <= 0.992 <= high
    assert held >= 36
