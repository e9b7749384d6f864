"""Confidence intervals of an accuracy."""

from __future__ import annotations

from math import sqrt

#: The normal distribution's 97.5% quantile.
Z = 1.959963984540054
#: By how much out-of-fold predictions count less than independent ones: with as many repeats as the first was
#: fitted for, and with fewer, for which it is larger by judgement. See "Intervals" in benchmarks/RESULTS.md.
REPEATED, ONCE = 1.2, 1.4
ENOUGH_REPEATS = 10


def wilson(accuracy: float, n: float) -> tuple[float, float]:
    """Returns Wilson's 95% interval (1927) of an accuracy that was measured on `n` independent images."""
    centre = (accuracy + Z**2 / (2 * n)) / (1 + Z**2 / n)
    margin = Z / (1 + Z**2 / n) * sqrt(accuracy * (1 - accuracy) / n + Z**2 / (4 * n**2))
    return max(0.0, min(accuracy, centre - margin)), min(1.0, max(accuracy, centre + margin))


def independent_images(n: int, repeats: int) -> float:
    """Returns how many independent predictions `n` out-of-fold predictions are worth.

    The models of the folds share images, and each has seen fewer than the final one (Bates, Hastie and
    Tibshirani, "Cross-validation: what does it estimate and how well does it do it?", 2021). With the divisor
    for ten repeats, Wilson's interval held the final model's accuracy in about 94% of draws from real data.
    """
    return n / (REPEATED if repeats >= ENOUGH_REPEATS else ONCE)
