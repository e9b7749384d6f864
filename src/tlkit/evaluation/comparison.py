"""Whether two classifiers differ on the same images."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def mcnemar(correct_before: NDArray[np.bool_], correct_after: NDArray[np.bool_]) -> dict[str, Any]:
    """McNemar's exact test, two-sided: only images that one of the two gets right say anything.

    Args:
        correct_before: whether the first classifier is right, per image ``(N,)``.
        correct_after: the same of the second, for the same images in the same order.

    Returns:
        gained: images that only the second gets right; lost: that only the first does; p: how likely
        so uneven a division is if each were as likely (`scipy.stats.binomtest`).

    Raises:
        ValueError: the two are not about the same number of images.
    """
    from scipy.stats import binomtest

    if len(correct_before) != len(correct_after):
        raise ValueError(f"{len(correct_before)} images before and {len(correct_after)} after")
    gained = int((~correct_before & correct_after).sum())
    lost = int((correct_before & ~correct_after).sum())
    p = float(binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0
    return {"gained": gained, "lost": lost, "p": p}
