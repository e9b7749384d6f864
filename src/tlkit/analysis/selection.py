"""Selects which unlabelled images to label next, from their features and predicted probabilities."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

#: How typical an image is, is measured by its distances to this many nearest others of its cluster.
NEIGHBOURS = 20
#: Images of a cluster that typical ones are sought among: distances between all pairs are computed.
MAX_COMPARED = 2000

#: Number of singular directions of the features that images are clustered by.
COMPONENTS = 128
#: Of an image that a classifier is certain about: k-means needs weights that do not vanish.
LEAST_WEIGHT = 1e-6


@dataclass(frozen=True)
class Selected:
    """An image that is worth a label.

    Attributes:
        index: its position.
        score: how much its label is worth, higher being more; comparable within one selection.
        similar: number of images in its cluster, itself included: those that it stands for.
    """

    index: int
    score: float
    similar: int


def cluster_positions(
    features: NDArray[np.float32], labelled: NDArray[np.float32] | None = None
) -> NDArray[np.float32]:
    """Returns where images lie for clustering, labelled ones after the others, ``(N + L, D)``.

    Signed square roots of features, scaled to length 1, as the probe's kernel compares them, and of these the
    first singular directions: with all features, the first hundred labels are worth less (see "Labels that
    tlkit next saves" in benchmarks/RESULTS.md), and k-means takes longer.

    Args:
        features: pooled features of unlabelled images, ``(N, C)``.
        labelled: signed square roots, scaled to length 1, of those of labelled images, ``(L, C)``.
    """
    from sklearn.utils.extmath import randomized_svd

    roots = np.sign(features) * np.sqrt(np.abs(features))
    roots /= np.maximum(np.linalg.norm(roots, axis=1, keepdims=True), np.finfo(np.float32).tiny)
    if labelled is not None:
        roots = np.concatenate([roots, labelled])
    _, _, components = randomized_svd(roots, min(COMPONENTS, *roots.shape), random_state=0)
    positions: NDArray[np.float32] = roots @ components.T
    return positions


def select_uncertain(
    positions: NDArray[np.float32], probabilities: NDArray[np.float64], count: int, *, seed: int = 0
) -> list[Selected]:
    """Selects images that a classifier is uncertain about and that differ from labelled ones and one another.

    The images are divided by k-means into as many clusters as there are labelled images and images to select.
    An unlabelled image weighs as much as the classifier is uncertain: 1 minus the difference of its two
    highest probabilities (Zhdanov, "Diverse mini-batch active learning", 2019). A labelled one weighs 1, and
    stands for its cluster. Of the others, those with the highest score, the sum of their images' weights,
    yield the image nearest to their centre.

    Args:
        positions: of the unlabelled images, then those of labelled ones, if they are known;
            `cluster_positions`.
        probabilities: the classifier's for the unlabelled images, ``(N, classes)``.
        count: how many to select; fewer are, if fewer of the images differ.
        seed: of the clusters' first centres.

    Returns:
        The selected images, the highest score first.
    """
    highest = np.sort(probabilities, 1)
    weights = np.maximum(1 - (highest[:, -1] - highest[:, -2]), LEAST_WEIGHT)
    unlabelled, labelled = len(weights), len(positions) - len(weights)
    weights = np.concatenate([weights, np.ones(labelled)])
    selected = []
    for members, centre in _clusters(positions, labelled + count, seed, weights):
        if members[-1] >= unlabelled:
            continue
        distances = ((positions[members] - centre) ** 2).sum(1)
        score = float(weights[members].sum())
        selected.append(Selected(int(members[distances.argmin()]), score, len(members)))
    return sorted(selected, key=lambda image: -image.score)[:count]


def select_typical(positions: NDArray[np.float32], count: int, *, seed: int = 0) -> list[Selected]:
    """Selects images that are typical of as many groups of similar ones, while nothing is labelled yet.

    The images are divided into `count` clusters by k-means. In each, the image with the shortest mean
    distance to its nearest neighbours is selected: TypiClust (Hacohen, Dekel and Weinshall, "Active Learning
    on a Budget: Opposite Strategies Suit High and Low Budgets", ICML 2022). A cluster's score is its number
    of images.

    Args:
        positions: of the images, from `cluster_positions`.
        count: how many to select; fewer are, if fewer of the images differ.
        seed: of the clusters' first centres.

    Returns:
        The selected images, the highest score first.
    """
    selected = [
        Selected(int(members[_most_typical(positions[members])]), float(len(members)), len(members))
        for members, _ in _clusters(positions, count, seed)
    ]
    return sorted(selected, key=lambda image: -image.score)


def _clusters(
    positions: NDArray[np.float32], count: int, seed: int, weights: NDArray[np.float64] | None = None
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
    """Yields the positions of each cluster's images, and its centre; none is empty."""
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    means = KMeans(min(count, len(positions)), n_init=1, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer images differ: there are fewer clusters
        clusters = means.fit_predict(positions, sample_weight=weights)
    for cluster in np.unique(clusters):
        yield np.flatnonzero(clusters == cluster), means.cluster_centers_[cluster]


def _most_typical(positions: NDArray[np.float32]) -> int:
    """Returns the position of the image with the shortest mean distance to its nearest neighbours."""
    from sklearn.metrics import pairwise_distances

    compared = positions[:MAX_COMPARED]
    neighbours = min(NEIGHBOURS, len(compared) - 1)
    # the nearest is the image itself
    nearest = np.partition(pairwise_distances(compared), neighbours, 1)[:, : neighbours + 1]
    return int(nearest.mean(1).argmin())
