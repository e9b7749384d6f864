"""Calibrates confidence with temperature scaling.

Temperature scaling (Guo et al., "On Calibration of Modern Neural Networks", 2017) divides logits by the
temperature that maximises the likelihood of the validation labels. Predicted classes do not change.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

#: Bounds of the temperature: beyond them a validation set has no more information.
BOUNDS = (0.05, 20.0)


def fit_temperature(logits: NDArray[np.float64], labels: NDArray[np.int64]) -> float:
    """Returns the temperature that maximises the likelihood of `labels`.

    Labels are smoothed as Platt does ("Probabilistic Outputs for Support Vector Machines", 1999): the true
    class of N images has the target (N + 1) / (N + 2), so that a few images that are all predicted correctly
    do not make the classifier certain.

    Args:
        logits: of validation images, ``(N, classes)``.
        labels: their true classes, ``(N,)``.
    """
    from scipy.optimize import minimize_scalar
    from scipy.special import log_softmax

    count, classes = logits.shape
    true_target = (count + 1) / (count + 2)
    other_target = (1 - true_target) / max(1, classes - 1)

    def loss(log_temperature: float) -> float:
        scores = log_softmax(logits / np.exp(log_temperature), axis=1)
        of_label = scores[np.arange(count), labels]
        return float(-(true_target * of_label + other_target * (scores.sum(1) - of_label)).mean())

    optimum = minimize_scalar(loss, bounds=tuple(np.log(BOUNDS)), method="bounded")
    return float(np.exp(optimum.x))


def probabilities(logits: NDArray[np.float64], temperature: float) -> NDArray[np.float64]:
    """Maps logits ``(N, classes)`` to probabilities; each row sums to 1."""
    from scipy.special import softmax

    result: NDArray[np.float64] = softmax(logits / temperature, axis=1)
    return result
