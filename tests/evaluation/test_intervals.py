"""Intervals of an accuracy."""

from __future__ import annotations

import pytest
from scipy.stats import binomtest

from tlkit.evaluation.intervals import independent_images, wilson


@pytest.mark.parametrize(("correct", "n"), [(0, 5), (3, 7), (50, 50), (981, 1000)])
def test_wilsons_interval_is_scipys(correct: int, n: int) -> None:
    expected = binomtest(correct, n).proportion_ci(confidence_level=0.95, method="wilson")
    assert wilson(correct / n, n) == pytest.approx((expected.low, expected.high))


def test_out_of_fold_predictions_count_less_than_independent_ones() -> None:
    assert independent_images(140) == pytest.approx(100)
    low, high = wilson(0.9, independent_images(120))
    test_low, test_high = wilson(0.9, 120)
    assert low < test_low and high > test_high
