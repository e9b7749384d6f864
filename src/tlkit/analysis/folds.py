"""Draws the folds in which probes are fitted to answer a question, groups of images together."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tlkit.data.folds import ALWAYS_TRAINED, assign_folds
from tlkit.utils import logistic


def draw_folds(
    labels: NDArray[np.int64], groups: NDArray[np.int64], folds: int, generator: np.random.Generator
) -> NDArray[np.int64]:
    """Returns each image's fold, ``(N,)``, with each class spread evenly and each group in one fold.

    A class whose images are all in one group cannot be tested: its images have `ALWAYS_TRAINED`, as those of
    a run's cross-validation. There are fewer folds if no class has as many groups.

    Args:
        labels: of the images, ``(N,)``.
        groups: what each image was taken of, ``(N,)``; see `LabelledImages.groups`.
        folds: number of folds.
        generator: draws them.
    """
    if len(np.unique(groups)) == len(groups):
        return logistic.draw_folds(labels, folds, generator)
    groups_of = [np.unique(groups[labels == label]) for label in np.unique(labels)]
    whole = [of_class[0] for of_class in groups_of if len(of_class) == 1]
    divided = np.flatnonzero(~np.isin(groups, whole))
    fold_of = np.full(len(labels), ALWAYS_TRAINED)
    folds = min(folds, max(len(np.setdiff1d(of_class, whole)) for of_class in groups_of))
    if folds > 1:
        seed = int(generator.integers(2**32))
        fold_of[divided] = assign_folds(labels[divided], groups[divided], folds, seed)
    return fold_of
