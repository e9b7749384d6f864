"""The calibration error against bins by hand, and its interval against simulated classifiers."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from numpy.typing import NDArray

from tlkit.evaluation.calibration_error import (
    BINS,
    calibration_bins,
    calibration_error,
    calibration_error_interval,
)
from tlkit.evaluation.metrics import evaluate


def simulate(
    count: int, sharpness: float, generator: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.bool_], NDArray[np.float64]]:
    """Simulates confidences, correct predictions and the probability of these; calibrated at sharpness 1."""
    confidence = 0.5 + 0.5 * generator.beta(8, 1.5, count)
    probability = 1 / (1 + ((1 - confidence) / confidence) ** sharpness)
    return confidence, generator.random(count) < probability, probability


def test_ece_equals_a_binning_by_hand() -> None:
    """Bins are [k/15, (k+1)/15), the last one with 1."""
    confidences = [Fraction(n, 100) for n in (51, 52, 58, 59, 61, 65, 66, 67, 79, 81, 93, 94, 100)]
    correct = [True, False, True, True, False, True, False, True, True, False, True, False, True]
    # class 1 is predicted throughout, since the confidences are above a half
    probabilities = np.array([[float(1 - p), float(p)] for p in confidences])
    labels = np.array([int(hit) for hit in correct])
    members: dict[int, list[int]] = {
        7: [0, 1],  # 0.467 to 0.533: 0.51, 0.52
        8: [2, 3],  # 0.533 to 0.600: 0.58, 0.59
        9: [4, 5, 6],  # 0.600 to 0.667: 0.61, 0.65, 0.66
        10: [7],  # 0.667 to 0.733: 0.67
        11: [8],  # 0.733 to 0.800: 0.79
        12: [9],  # 0.800 to 0.867: 0.81
        13: [10],  # 0.867 to 0.933: 0.93
        14: [11, 12],  # 0.933 to 1: 0.94, 1.00
    }
    # |sum of hits - sum of confidences| of each bin, in hundredths
    gaps = [3, 83, 92, 33, 21, 81, 7, 94]
    assert [
        abs(sum(100 * correct[index] - 100 * confidences[index] for index in rows))
        for rows in members.values()
    ] == gaps
    confidence, hits = probabilities.max(1), probabilities.argmax(1) == labels
    assert calibration_error(confidence, hits) == pytest.approx(sum(gaps) / 100 / 13)
    bins = calibration_bins(confidence, hits)
    assert bins.counts.tolist() == [len(members.get(index, [])) for index in range(BINS)]
    for index, rows in members.items():
        assert bins.accuracy[index] == pytest.approx(sum(correct[row] for row in rows) / len(rows))
        assert bins.confidence[index] == pytest.approx(
            float(sum(confidences[row] for row in rows)) / len(rows)
        )


def test_a_confidence_on_an_edge_is_in_the_upper_bin() -> None:
    bins = calibration_bins(np.array([0.0, 0.2, 1.0]), np.array([False, True, True]))
    assert np.flatnonzero(bins.counts).tolist() == [0, 3, 14]
    assert bins.counts.sum() == 3


@pytest.mark.parametrize("sharpness", [1.0, 0.7], ids=["calibrated", "overconfident"])
def test_the_interval_holds_the_true_error(sharpness: float) -> None:
    generator = np.random.default_rng(1)
    confidence, _, probability = simulate(1_000_000, sharpness, generator)
    bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
    true_error = np.abs(np.bincount(bins, weights=probability - confidence)).sum() / len(confidence)
    assert true_error < 0.001 if sharpness == 1 else 0.05 < true_error < 0.08
    sets = [simulate(200, sharpness, generator)[:2] for _ in range(120)]
    intervals = [calibration_error_interval(*predictions) for predictions in sets]
    held = [low <= true_error + 1e-3 and true_error <= high for low, high in intervals]
    assert np.mean(held) >= 0.92
    assert all(
        low <= calibration_error(*one) <= high for one, (low, high) in zip(sets, intervals, strict=True)
    )
    # and it says something: it is short, and its beginning tells the two classifiers apart
    assert np.mean([high - low for low, high in intervals]) < 0.12
    begins_at_zero = np.mean([low == 0 for low, _ in intervals])
    assert begins_at_zero > 0.9 if sharpness == 1 else begins_at_zero < 0.6


def test_the_upper_end_is_a_quantile_of_resampled_errors() -> None:
    generator = np.random.default_rng(2)
    confidence, correct, _ = simulate(400, 0.7, generator)
    errors = []
    for _ in range(3000):
        drawn = generator.integers(400, size=400)
        errors.append(calibration_error(confidence[drawn], correct[drawn]))
    low, high = calibration_error_interval(confidence, correct)
    assert high == pytest.approx(np.quantile(errors, 0.975), rel=0.04)
    assert low == pytest.approx(2 * calibration_error(confidence, correct) - high)


def test_predictions_that_are_worth_less_have_a_wider_interval() -> None:
    confidence, correct, _ = simulate(2000, 0.7, np.random.default_rng(3))
    low, high = calibration_error_interval(confidence, correct)
    assert (low, high) == calibration_error_interval(confidence, correct)  # the seed is fixed
    wider_low, wider_high = calibration_error_interval(confidence, correct, independent=2000 / 1.4)
    assert wider_low < low and high < wider_high
    probabilities = np.stack([confidence, 1 - confidence], axis=1)
    scores = evaluate(probabilities, np.where(correct, 0, 1), independent=2000 / 1.4)
    assert scores.ece_ci95 == (wider_low, wider_high)


@pytest.mark.parametrize("correct", [[True], [False], [True, False]])
def test_the_interval_of_one_or_two_images(correct: list[bool]) -> None:
    low, high = calibration_error_interval(np.array([0.9] * len(correct)), np.array(correct))
    assert 0 <= low <= calibration_error(np.array([0.9] * len(correct)), np.array(correct)) <= high <= 1
