"""Every number against its own formula, written out by hand."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from numpy.typing import NDArray

from tlkit.evaluation.metrics import evaluate, summary

Probabilities = NDArray[np.float64]
Labels = NDArray[np.int64]


def predictions(classes: int, n: int = 200) -> tuple[Probabilities, Labels]:
    """Predictions that are better than chance, rounded so that some are equal."""
    generator = np.random.default_rng(3)
    labels = generator.integers(classes, size=n)
    logits = generator.normal(size=(n, classes)) + 1.5 * np.eye(classes)[labels]
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    rounded = probabilities.round(2)
    rounded[:, 0] = 1 - rounded[:, 1:].sum(1)
    return rounded, labels


def pairs_in_order(scores: Probabilities, positive: NDArray[np.bool_]) -> float:
    """The share of (positive, negative) pairs in which the positive scores higher; ties count half."""
    above = [
        1.0 if yes > no else 0.5 if yes == no else 0.0 for yes in scores[positive] for no in scores[~positive]
    ]
    return sum(above) / len(above)


def binned_error(probabilities: Probabilities, labels: Labels) -> float:
    bins: dict[int, list[tuple[float, bool]]] = {}
    for row, label in zip(probabilities, labels, strict=True):
        bins.setdefault(min(int(row.max() * 15), 14), []).append((row.max(), row.argmax() == label))
    gaps = [
        len(each) * abs(np.mean([top for top, _ in each]) - np.mean([right for _, right in each]))
        for each in bins.values()
    ]
    return float(sum(gaps) / len(labels))


def wilson(correct: int, n: int) -> list[float]:
    z, share = 1.959963984540054, correct / n
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return [middle - half, middle + half]


@pytest.mark.parametrize("classes", [2, 4])
def test_every_number_of_a_test_set(classes: int) -> None:
    probabilities, labels = predictions(classes)
    result = evaluate(probabilities, labels)
    correct = sum(int(row.argmax() == label) for row, label in zip(probabilities, labels, strict=True))
    assert 0.5 * len(labels) < correct < len(labels)
    assert (result["n"], result["correct"], result["accuracy"]) == (200, correct, correct / 200)
    assert result["ci95"] == pytest.approx(wilson(correct, 200))
    of_truth = [row[label] for row, label in zip(probabilities, labels, strict=True)]
    assert result["log_loss"] == pytest.approx(-sum(math.log(max(p, 2.0**-23)) for p in of_truth) / 200)
    one_by_one = [pairs_in_order(probabilities[:, each], labels == each) for each in range(classes)]
    due = one_by_one[1] if classes == 2 else sum(one_by_one) / classes
    assert result["auroc"] == pytest.approx(due, abs=1e-6)
    assert result["ece"] == pytest.approx(binned_error(probabilities, labels), abs=1e-6)
    assert result["confusion"] == [
        [int(((labels == true) & (probabilities.argmax(1) == found)).sum()) for found in range(classes)]
        for true in range(classes)
    ]


def test_a_worked_example() -> None:
    probabilities = np.array([[0.9, 0.1], [0.6, 0.4], [0.3, 0.7], [0.8, 0.2]])
    result = evaluate(probabilities, np.array([0, 0, 1, 1]))
    assert list(result) == "n correct accuracy ci95 log_loss auroc ece confusion".split()
    assert (result["n"], result["correct"], result["accuracy"]) == (4, 3, 0.75)
    assert result["ci95"] == pytest.approx([0.3006, 0.9544], abs=1e-4)
    assert result["log_loss"] == pytest.approx((-math.log(0.9 * 0.6 * 0.7 * 0.2)) / 4)
    assert result["auroc"] == pytest.approx(0.75)  # of four pairs, 0.2 against 0.4 is the wrong way round
    assert result["ece"] == pytest.approx((0.1 + 0.4 + 0.3 + 0.8) / 4, abs=1e-6)
    assert result["confusion"] == [[2, 0], [1, 1]]


def test_the_validation_numbers_are_a_part_of_the_test_numbers() -> None:
    probabilities, labels = predictions(3)
    part = summary(probabilities, labels)
    assert list(part) == ["n", "correct", "accuracy", "ci95", "log_loss"]
    assert part == {key: evaluate(probabilities, labels)[key] for key in part}


@pytest.mark.parametrize(("classes", "labels"), [(2, [1, 1, 1]), (3, [0, 1, 0])])
def test_auroc_is_null_where_a_class_is_missing(classes: int, labels: list[int]) -> None:
    probabilities = np.full((3, classes), 1 / classes)
    result = evaluate(probabilities, np.array(labels))
    assert result["auroc"] is None
    assert len(result["confusion"]) == classes
    assert '"auroc": null' in json.dumps(result)


def test_of_equally_probable_classes_the_lowest_is_predicted() -> None:
    tied = np.array([[0.5, 0.5], [0.5, 0.5]])
    assert evaluate(tied, np.array([0, 1]))["confusion"] == [[1, 0], [1, 0]]


def test_probabilities_of_nought_and_one_and_beside_them() -> None:
    certain = np.array([[0.0, 1.0], [1.0 + 1e-12, -1e-12], [1.0, 0.0]])
    result = evaluate(certain, np.array([1, 0, 1]))
    assert result["log_loss"] == pytest.approx(23 * math.log(2) / 3, rel=1e-6)
    assert result["ece"] == pytest.approx(1 / 3)
    assert result["auroc"] == pytest.approx(0.75)


def test_all_right_and_all_wrong_keep_an_honest_interval() -> None:
    certain = np.array([[1.0, 0.0]] * 10)
    assert summary(certain, np.zeros(10, dtype=np.int64))["ci95"] == pytest.approx(wilson(10, 10))
    assert summary(certain, np.ones(10, dtype=np.int64))["ci95"] == pytest.approx(wilson(0, 10))
