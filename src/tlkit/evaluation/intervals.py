"""Confidence intervals of an accuracy."""

from __future__ import annotations

from math import sqrt

#: The normal distribution's 97.5% quantile.
Z = 1.959963984540054
#: How many out-of-fold predictions are worth an independent one: see "Intervals" in benchmarks/RESULTS.md.
OUT_OF_FOLD_PER_INDEPENDENT = 1.4


def wilson(accuracy: float, n: float) -> tuple[float, float]:
    """Returns Wilson's 95% interval (1927) of an accuracy that was measured on `n` independent images."""
    centre = (accuracy + Z**2 / (2 * n)) / (1 + Z**2 / n)
    margin = Z / (1 + Z**2 / n) * sqrt(accuracy * (1 - accuracy) / n + Z**2 / (4 * n**2))
    return max(0.0, min(accuracy, centre - margin)), min(1.0, max(accuracy, centre + margin))


def independent_images(n: int) -> float:
    """Returns how many independent predictions `n` out-of-fold predictions are worth, repeated or not.

    The models of the folds share images, and each has seen fewer than the final one (Bates, Hastie and
    Tibshirani, "Cross-validation: what does it estimate and how well does it do it?", 2021).
    """
    return n / OUT_OF_FOLD_PER_INDEPENDENT
