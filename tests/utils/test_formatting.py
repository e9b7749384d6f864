"""Numbers and lists as people read them."""

from __future__ import annotations

import pytest

from tlkit.utils.formatting import bulleted, format_bytes, format_duration, format_p_value, plural, shortlist


@pytest.mark.parametrize(
    ("p", "text"),
    [
        (1.0, "p = 1"),
        (0.5, "p = 0.5"),
        (0.0456, "p = 0.046"),
        (0.001, "p = 0.001"),
        (0.00099, "p = 1e-03"),
        (2.3e-9, "p = 2e-09"),
        (1e-301, "p < 1e-300"),
        (0.0, "p < 1e-300"),
    ],
)
def test_p_values(p: float, text: str) -> None:
    assert format_p_value(p) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (1_500_000, "1.5 MB"),
        (20_000_000_000, "20.0 GB"),
        (3_210_000_000_000, "3.2 TB"),
        (5_000_000_000_000_000, "5000.0 TB"),
    ],
)
def test_bytes(count: int, text: str) -> None:
    assert format_bytes(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0.0 s"),
        (8.24, "8.2 s"),
        (45.0, "45 s"),
        (89.4, "89 s"),
        (90.0, "1 min 30 s"),
        (185.0, "3 min 5 s"),
        (3599.6, "1 h 0 min"),
        (7800.0, "2 h 10 min"),
        (360_000.0, "100 h 0 min"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


def test_counts_with_their_noun() -> None:
    assert plural(0, "image") == "0 images"
    assert plural(1, "image") == "1 image"
    assert plural(1200, "image") == "1,200 images"


def test_a_short_list_is_shown_whole_and_a_long_one_is_cut() -> None:
    assert shortlist([]) == ""
    assert shortlist(["a"]) == "a"
    assert shortlist(list("abcde")) == "a, b, c, d, e"
    assert shortlist(list("abcdef")) == "a, b, c, d, e and 1 more"
    assert shortlist(list("abcde"), 2) == "a, b and 3 more"
    assert shortlist(list("abc"), 2, "; ") == "a; b and 1 more"


def test_a_bulleted_list_is_cut_at_its_limit() -> None:
    assert bulleted("problems", []) == "problems"
    assert bulleted("problems", ["a", "b"], 2) == "problems\n  - a\n  - b"
    assert bulleted("problems", list("abcd"), 2) == "problems\n  - a\n  - b\n  - and 2 more"
