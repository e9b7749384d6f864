"""Estimates the accuracy of the best of many settings, without the optimism of having been chosen.

Bootstrap bias corrected cross-validation (Tsamardinos, Greasidou and Borboudakis, "Bootstrapping the
out-of-sample predictions for efficient and accurate cross-validation", Machine Learning 2018).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

#: How many times the images are drawn.
DRAWS = 1000


def corrected_accuracy(
    scores: NDArray[np.float64], correct: NDArray[np.bool_], weights: NDArray[np.float64], seed: int
) -> float:
    """Returns the accuracy to expect of the settings with the highest mean score.

    Images are drawn with replacement; the settings that are best on those drawn are judged on the images that
    were not. The result is the mean over the draws. Nothing is trained.

    Args:
        scores: each setting's out-of-fold score on each image, higher being better, ``(settings, N)``.
        correct: whether the setting's out-of-fold prediction of the image is correct, ``(settings, N)``.
        weights: each image's weight in the mean score, ``(N,)``.
        seed: of the draws.
    """
    n = scores.shape[1]
    generator = np.random.default_rng(seed)
    drawn = generator.multinomial(n, np.full(n, 1 / n), size=DRAWS)
    weighted = drawn * weights
    means = weighted @ scores.T / weighted.sum(1, keepdims=True).clip(min=1e-12)
    chosen = means.argmax(1)
    accuracies = [
        correct[setting, counts == 0].mean()
        for setting, counts in zip(chosen, drawn, strict=True)
        if (counts == 0).any()
    ]
    return float(np.mean(accuracies))
