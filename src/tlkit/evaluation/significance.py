"""Tests whether two classifiers differ on the same images."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


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
