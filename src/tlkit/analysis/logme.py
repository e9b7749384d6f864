"""LogME: how well features suit labels, without fitting a classifier to them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

#: Directions whose squared length is below this fraction of the largest one's are left out.
NEGLIGIBLE = 1e-10
MAX_ITERATIONS = 100
TOLERANCE = 1e-4


def logme(features: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
    """Computes the log evidence of labels given features, per image, the mean over the classes.

    It is that of a Bayesian linear regression to each class's 0 and 1, whose two precisions maximise it: You
    et al., "LogME: Practical Assessment of Pre-trained Models for Transfer Learning", ICML 2021. Higher is
    better. Only values for the same images can be compared.

    Args:
        features: pooled features, ``(N, C)``.
        labels: int64 ``(N,)``.
    """
    values = features.astype(np.float64)
    eigenvalues, directions = np.linalg.eigh(values.T @ values)
    matters = eigenvalues > NEGLIGIBLE * eigenvalues[-1]
    eigenvalues, directions = eigenvalues[matters], directions[:, matters]
    evidences = []
    for label in np.unique(labels):
        target = (labels == label).astype(np.float64)
        explained = (directions.T @ (values.T @ target)) ** 2 / eigenvalues
        evidences.append(_evidence(eigenvalues, explained, float(target.sum()), len(labels)))
    return float(np.mean(evidences))


def _evidence(
    eigenvalues: NDArray[np.float64], explained: NDArray[np.float64], total: float, count: int
) -> float:
    """Returns the maximum of the log evidence per image, found by MacKay's fixed-point iteration.

    Args:
        eigenvalues: of the features' second moments, ``(R,)``.
        explained: the target's squared length along each direction, ``(R,)``.
        total: the target's squared length.
        count: number of images.
    """
    unexplained = max(total - float(explained.sum()), 0.0)
    weight_precision = noise_precision = 1.0
    for _ in range(MAX_ITERATIONS):
        ratio = weight_precision / noise_precision
        squared_weights = float((eigenvalues * explained / (ratio + eigenvalues) ** 2).sum())
        residual = float((explained / (1 + eigenvalues / ratio) ** 2).sum()) + unexplained
        effective = float((eigenvalues / (ratio + eigenvalues)).sum())
        # the least that keeps both finite, as in the authors' code
        weight_precision = effective / (squared_weights + 1e-5)
        noise_precision = (count - effective) / (residual + 1e-5)
        if abs(weight_precision / noise_precision - ratio) <= TOLERANCE * ratio:
            break
    evidence = (
        len(eigenvalues) * np.log(weight_precision)
        + count * np.log(noise_precision)
        - np.log(weight_precision + noise_precision * eigenvalues).sum()
        - noise_precision * residual
        - weight_precision * squared_weights
        - count * np.log(2 * np.pi)
    )
    return float(evidence) / (2 * count)
