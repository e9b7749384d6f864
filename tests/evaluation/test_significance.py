"""McNemar's exact test against the binomial distribution."""

from __future__ import annotations

from math import comb

import numpy as np
import pytest
from scipy.stats import binom

from tlkit.evaluation.significance import McNemar, describe_correction, holm, least_images, mcnemar


def compare(gained: int, lost: int, both: int = 7, neither: int = 2) -> McNemar:
    """Compares two classifiers; the numbers are of images that one, both or neither predicts correctly."""
    before = np.array([False] * gained + [True] * lost + [True] * both + [False] * neither)
    after = np.array([True] * gained + [False] * lost + [True] * both + [False] * neither)
    return mcnemar(before, after)


@pytest.mark.parametrize(("gained", "lost"), [(40, 3), (3, 40), (6, 4), (1, 0), (120, 100)])
def test_p_is_both_tails_of_a_fair_coin(gained: int, lost: int) -> None:
    result = compare(gained, lost)
    assert (result.gained, result.lost) == (gained, lost)
    assert result.p == pytest.approx(2 * binom.cdf(min(gained, lost), gained + lost, 0.5))


def test_a_worked_example() -> None:
    assert compare(9, 1).p == pytest.approx(2 * (comb(10, 0) + comb(10, 1)) / 2**10)


def test_p_is_one_where_as_many_are_gained_as_lost_or_none_at_all() -> None:
    assert compare(5, 5).p == 1.0
    assert compare(0, 0) == McNemar(gained=0, lost=0, p=1.0)


def test_images_that_both_predict_correctly_or_wrongly_do_not_count() -> None:
    assert compare(9, 1, both=5000, neither=800) == compare(9, 1, both=0, neither=0)


def test_the_result_has_plain_numbers() -> None:
    result = compare(2, 1)
    assert result == McNemar(gained=2, lost=1, p=1.0)
    assert [type(value) for value in (result.gained, result.lost, result.p)] == [int, int, float]


def test_another_number_of_images_is_refused() -> None:
    with pytest.raises(ValueError, match="3 images before and 2 after"):
        mcnemar(np.array([True, True, False]), np.array([True, True]))


def test_holm_multiplies_each_p_value_by_the_number_of_those_not_yet_rejected() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])  # Holm's own steps
    assert holm([0.3, 0.02, 0.9]) == pytest.approx([0.6, 0.06, 0.9])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert (holm([0.04]), holm([])) == ([0.04], [])


def test_among_many_equal_classifiers_a_false_discovery_is_as_rare_as_in_one() -> None:
    p_values = np.random.default_rng(1).random((2000, 10))
    assert np.mean([min(p) < 0.05 for p in p_values]) > 0.35
    assert np.mean([min(holm(p)) < 0.05 for p in p_values]) == pytest.approx(0.05, abs=0.015)


def test_the_correction_is_named_where_there_is_one() -> None:
    assert [describe_correction(count) for count in (0, 1, 3)] == ["", "", "Holm-corrected for 3 comparisons"]


@pytest.mark.parametrize("comparisons", [1, 2, 3, 6, 10, 45])
def test_with_fewer_images_no_difference_can_be_significant(comparisons: int) -> None:
    least = least_images(comparisons, 0.05)
    smallest = {count: compare(count, 0, both=0, neither=0).p for count in (least - 1, least)}
    corrected = {count: min(holm([p] + [1.0] * (comparisons - 1))) for count, p in smallest.items()}
    assert corrected[least] < 0.05 <= corrected[least - 1]
