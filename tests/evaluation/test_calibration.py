"""Temperature scaling against a search over temperatures."""

from __future__ import annotations

import numpy as np
import pytest

from tlkit.evaluation.calibration import BOUNDS, fit_temperature, probabilities


def smoothed_loss(logits: np.ndarray, labels: np.ndarray, temperature: float) -> float:
    """Returns the cross-entropy against Platt's smoothed targets, one image at a time."""
    count, classes = logits.shape
    total = 0.0
    for row, label in zip(logits, labels, strict=True):
        weights = np.exp(row / temperature)
        log_probabilities = np.log(weights / weights.sum())
        for index, value in enumerate(log_probabilities):
            target = (count + 1) / (count + 2) if index == label else 1 / (count + 2) / (classes - 1)
            total -= target * value
    return total / count


@pytest.mark.parametrize("scale", [0.3, 1.0, 4.0])
def test_the_temperature_minimises_the_smoothed_loss(scale: float) -> None:
    generator = np.random.default_rng(5)
    labels = generator.integers(3, size=60)
    logits = scale * (generator.normal(size=(60, 3)) + 1.5 * np.eye(3)[labels])
    temperature = fit_temperature(logits, labels)
    assert BOUNDS[0] < temperature < BOUNDS[1]
    least = smoothed_loss(logits, labels, temperature)
    for other in (0.5, 0.9, 1.1, 2.0):
        assert least < smoothed_loss(logits, labels, other * temperature)


def test_a_few_correct_predictions_do_not_make_the_classifier_certain() -> None:
    logits = np.array([[4.0, 0.0], [0.0, 3.0], [2.0, 0.0]])
    temperature = fit_temperature(logits, np.array([0, 1, 0]))
    assert probabilities(logits, temperature).max() < 0.99


def test_probabilities_are_a_softmax_of_the_divided_logits() -> None:
    logits = np.array([[2.0, 0.0, -2.0]])
    expected = np.exp([1.0, 0.0, -1.0]) / np.exp([1.0, 0.0, -1.0]).sum()
    assert probabilities(logits, 2.0) == pytest.approx(expected[None])
