"""Confidence that means something: one number that sharpens or softens all probabilities.

Temperature scaling (Guo et al., "On Calibration of Modern Neural Networks", 2017): logits are divided by
the temperature that makes the validation images most likely. The predicted class stays what it is.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

#: Temperatures are looked for between these: outside, a validation set says nothing more.
RANGE = (0.05, 20.0)


def fit_temperature(logits: NDArray[np.float64], labels: NDArray[np.int64]) -> float:
    """The temperature under which `labels` are most likely.

    Platt's targets ("Probabilistic Outputs for Support Vector Machines", 1999) stand for the labels: of N
    images one more might have been right and one wrong, so that a few images that are all right do not
    make the classifier certain.

    Args:
        logits: of validation images, ``(N, classes)``.
        labels: their true classes, ``(N,)``.
    """
    from scipy.optimize import minimize_scalar
    from scipy.special import log_softmax

    count, classes = logits.shape
    truth = (count + 1) / (count + 2)
    others = (1 - truth) / max(1, classes - 1)

    def loss(log_temperature: float) -> float:
        scores = log_softmax(logits / np.exp(log_temperature), axis=1)
        of_truth = scores[np.arange(count), labels]
        return float(-(truth * of_truth + others * (scores.sum(1) - of_truth)).mean())

    found = minimize_scalar(loss, bounds=tuple(np.log(RANGE)), method="bounded")
    return float(np.exp(found.x))


def probabilities(logits: NDArray[np.float64], temperature: float) -> NDArray[np.float64]:
    """Logits ``(N, classes)`` to probabilities, each row adding up to 1."""
    from scipy.special import softmax

    result: NDArray[np.float64] = softmax(logits / temperature, axis=1)
    return result
