"""Tests whether two classifiers differ on the same images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import floor, log2

import numpy as np
from numpy.typing import NDArray

from tlkit.evaluation.calibration import fit_temperature, probabilities
from tlkit.recipe.schema import Monitor


@dataclass(frozen=True, slots=True)
class McNemar:
    """The result of McNemar's exact test.

    Attributes:
        gained: images that only the second classifier predicts correctly.
        lost: images that only the first classifier predicts correctly.
        p: probability of such a difference or a larger one if both were equally likely.
    """

    gained: int
    lost: int
    p: float


def mcnemar(first_correct: NDArray[np.bool_], second_correct: NDArray[np.bool_]) -> McNemar:
    """Performs McNemar's exact test, two-sided, with `scipy.stats.binomtest`.

    Only images that exactly one of the two classifiers predicts correctly count.

    Args:
        first_correct: whether the first classifier is correct, per image ``(N,)``.
        second_correct: the same of the second, for the same images in the same order.

    Raises:
        ValueError: the numbers of images differ.
    """
    from scipy.stats import binomtest

    if len(first_correct) != len(second_correct):
        raise ValueError(f"{len(first_correct)} images before and {len(second_correct)} after")
    gained = int((~first_correct & second_correct).sum())
    lost = int((first_correct & ~second_correct).sum())
    p = float(binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0
    return McNemar(gained, lost, p)


def holm(p_values: Sequence[float]) -> list[float]:
    """Corrects p-values for their number, so that among all of them a false discovery is as rare as in one.

    Holm, "A Simple Sequentially Rejective Multiple Test Procedure", 1979: the smallest of m is multiplied by
    m, the next by m - 1, and so on; none becomes smaller than the one before it.

    Args:
        p_values: one for each comparison, ``(m,)``.

    Returns:
        The corrected ones, in the same order.
    """
    raw = np.array(p_values, np.float64)
    order = np.argsort(raw, kind="stable")
    corrected = np.empty_like(raw)
    corrected[order] = np.maximum.accumulate(raw[order] * np.arange(len(raw), 0, -1)).clip(max=1)
    return [float(p) for p in corrected]


def least_images(comparisons: int, level: float) -> int:
    """Returns the number of images from which on McNemar's test can be significant after Holm's correction.

    The smallest p-value of n images is 2 / 2**n: one classifier is correct in all of them, the other in none.
    """
    return floor(2 + log2(comparisons / level))


def describe_correction(comparisons: int) -> str:
    """Describes how p-values of so many comparisons were corrected; nothing for one, which needs none."""
    return f"Holm-corrected for {comparisons} comparisons" if comparisons > 1 else ""


def paired_gain(
    before: NDArray[np.float64], after: NDArray[np.float64], labels: NDArray[np.int64], measure: Monitor
) -> tuple[float, float]:
    """Computes how much better one classifier is than another on the same images, and the standard error.

    Args:
        before: logits of the first classifier, ``(N, classes)``.
        after: logits of the second.
        labels: true classes, ``(N,)``; with several per image, 0 or 1 for each class, ``(N, classes)``.
        measure: accuracy, balanced accuracy, or log loss after temperature scaling, in nats; with several
            labels per image, the binary log loss as it is.

    Returns:
        The mean gain and its standard error, both in fractions of 1 or in nats.
    """
    gains = _score(after, labels, measure) - _score(before, labels, measure)
    error = gains.std(ddof=1) / np.sqrt(len(gains)) if len(gains) > 1 else np.inf
    return float(gains.mean()), float(error)


def _score(logits: NDArray[np.float64], labels: NDArray[np.int64], measure: Monitor) -> NDArray[np.float64]:
    """Returns what each image contributes to the measure, higher being better, ``(N,)``."""
    if labels.ndim == 2:
        from scipy.special import log_expit

        likelihood: NDArray[np.float64] = log_expit(np.where(labels == 1, logits, -logits)).mean(1)
        return likelihood
    if measure == "loss":
        calibrated = probabilities(logits, fit_temperature(logits, labels))
        likelihoods: NDArray[np.float64] = np.log(calibrated[np.arange(len(labels)), labels].clip(1e-12))
        return likelihoods
    weights = np.ones(len(labels))
    if measure == "balanced_accuracy":
        _, inverse, counts = np.unique(labels, return_inverse=True, return_counts=True)
        weights = len(labels) / (len(counts) * counts[inverse])
    return np.where(logits.argmax(1) == labels, weights, 0.0)
