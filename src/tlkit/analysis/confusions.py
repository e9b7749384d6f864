"""Finds pairs of classes that are confused with each other, and classes that are too small."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from tlkit.analysis.audit_file import Confusion
from tlkit.experiment.plan import FEW_IMAGES

#: A pair is listed if this many of its images, and this fraction of them, are taken for the other class.
MIN_CONFUSED = 3
MIN_FRACTION = 0.03


def find_confusions(
    labels: NDArray[np.int64], predicted: NDArray[np.int64], classes: Sequence[str]
) -> tuple[Confusion, ...]:
    """Finds pairs of classes that are confused, the largest fraction first.

    Args:
        labels: int64 ``(N,)``.
        predicted: the out-of-fold predictions, ``(N,)``; -1 where there is none.
        classes: class names.
    """
    is_predicted = predicted >= 0
    matrix = np.zeros((len(classes), len(classes)), np.int64)
    np.add.at(matrix, (labels[is_predicted], predicted[is_predicted]), 1)
    images = np.bincount(labels[is_predicted], minlength=len(classes))
    confused = np.triu(matrix + matrix.T, 1)
    pairs = [
        Confusion(
            classes=(classes[first], classes[second]),
            confused=int(confused[first, second]),
            images=int(images[first] + images[second]),
        )
        for first, second in np.argwhere(confused >= MIN_CONFUSED)
    ]
    often = [pair for pair in pairs if pair.confused >= MIN_FRACTION * pair.images]
    return tuple(sorted(often, key=lambda pair: (-pair.confused / pair.images, pair.classes)))


def small_classes(images: Mapping[str, int]) -> tuple[str, ...]:
    """Returns the names of the classes that are too small to be learnt reliably, as a run warns of them.

    Args:
        images: number of images of each class.
    """
    return tuple(name for name, count in images.items() if count < FEW_IMAGES)
