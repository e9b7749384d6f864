"""Finds images that resemble no other."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tlkit.analysis.audit_file import Unlike
from tlkit.analysis.features import DatasetFeatures
from tlkit.analysis.neighbours import Neighbours

#: The mean distance to this many neighbours counts: a stray image may have a copy.
NEIGHBOURS = 5
#: How many robust standard deviations an image is farther away than the median. At 2.5, 1% of the flowers are
#: listed (seedless stalks, a bridge, black bars); cats and waste among flowers are at 5 to 7.
DEVIATIONS = 2.5
#: From median absolute deviations to standard deviations.
MAD_TO_STANDARD = 1.4826
#: Images that are compared at a time.
BLOCK = 128
#: Among fewer images none is unlike the others.
MIN_IMAGES = 20


def find_unlike(features: DatasetFeatures, neighbours: Neighbours) -> tuple[Unlike, ...]:
    """Finds images that are much farther from their nearest neighbours than others are, the strangest first.

    Args:
        features: the images.
        neighbours: of their mean features.
    """
    if len(features) < MIN_IMAGES:
        return ()
    distances = _distances(features.mean, neighbours.indices[:, :NEIGHBOURS])
    median = np.median(distances)
    deviation = MAD_TO_STANDARD * np.median(np.abs(distances - median))
    order = np.argsort(-distances, kind="stable")
    unlike = order[: int((distances > median + DEVIATIONS * deviation).sum())]
    return tuple(
        Unlike(
            image=features.labelled.images[index].sample.id,
            label=features.labelled.classes[features.labels[index]],
            similarity=float(neighbours.similarities[index, 0]),
        )
        for index in unlike
    )


def _distances(features: NDArray[np.float32], neighbours: NDArray[np.int64]) -> NDArray[np.float32]:
    """Returns each image's mean distance ``(N,)`` to its neighbours: 1 minus the cosine, uncentred.

    Features of strange images are near the mean, where the cosine of centred ones says little.
    """
    # np.linalg.norm would square a copy: of many images, it would not fit into memory
    lengths = np.sqrt(np.einsum("nc,nc->n", features, features)).clip(1e-12)
    distances = np.empty(len(features), np.float32)
    for start in range(0, len(features), BLOCK):
        rows = slice(start, start + BLOCK)
        near = neighbours[rows]
        products = np.einsum("nc,nkc->nk", features[rows], features[near])
        distances[rows] = 1 - (products / lengths[near]).mean(1) / lengths[rows]
    return distances
