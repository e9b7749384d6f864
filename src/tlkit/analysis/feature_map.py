"""Draws features in two dimensions, so that images that a network finds similar lie close together.

t-SNE (van der Maaten and Hinton 2008) of the principal components, by scikit-learn.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

#: More images than this are too many to be told apart, and to be laid out within two seconds.
MAX_IMAGES = 1000
#: Principal components that the layout is of, the number of neighbours that it keeps close, and of its steps.
COMPONENTS, PERPLEXITY, STEPS = 50, 30, 500
#: Fewer images than this have no layout.
MIN_IMAGES = 10


def choose_images(count: int, always: NDArray[np.int64]) -> NDArray[np.int64]:
    """Returns the positions of the images that a map shows: `always`, and a random sample of the others."""
    if count <= MAX_IMAGES:
        return np.arange(count)
    others = np.setdiff1d(np.arange(count), always)
    sample = np.random.default_rng(0).permutation(others)[: max(0, MAX_IMAGES - len(always))]
    return np.sort(np.concatenate([always[:MAX_IMAGES], sample]))


def lay_out(features: NDArray[np.float32]) -> NDArray[np.float64]:
    """Returns the position of each image on the map.

    Args:
        features: pooled features, ``(N, C)``, at least `MIN_IMAGES`.

    Returns:
        Positions, ``(N, 2)``, each coordinate from 0 to 1; large distances mean nothing.
    """
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    normalised = features / lengths.clip(np.finfo(np.float32).tiny)
    if not np.ptp(normalised, axis=0).any():
        return np.full((len(features), 2), 0.5)
    components = min(COMPONENTS, *features.shape)
    reduced = PCA(components, random_state=0).fit_transform(normalised)
    perplexity = min(PERPLEXITY, (len(features) - 1) / 3)
    layout = TSNE(perplexity=perplexity, init="pca", max_iter=STEPS, random_state=0)
    coordinates = layout.fit_transform(reduced).astype(np.float64)
    span = np.ptp(coordinates, axis=0)
    scaled: NDArray[np.float64] = (coordinates - coordinates.min(0)) / np.where(span > 0, span, 1.0)
    return scaled
