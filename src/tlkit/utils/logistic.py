"""Multinomial logistic regression with a squared penalty, for many folds and strengths at once.

All problems share the same images, so their logits and gradients are one matrix product. The features are
rotated until their columns are orthogonal: Böhning's bound on the Hessian ("Multinomial logistic regression
algorithm", 1992) is then diagonal, and preconditions Nesterov's accelerated gradient with adaptive restarts
(O'Donoghue and Candès, "Adaptive restart for accelerated gradient schemes", 2015). scikit-learn's solvers
take one problem at a time.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

#: Directions whose variance is below this fraction of the largest one's are left out.
NEGLIGIBLE = 1e-6
#: Images that are held in float64 at a time.
ROTATED = 1024
#: Iterations between two looks at which problems are solved.
CHECK_EVERY = 10
#: Iterations after which a problem counts as solved: without noise, weak penalties take very many.
MAX_ITERATIONS = 2000
#: A problem is solved when the preconditioned gradient, per square root of an image, is below this: enough to
#: choose a strength by.
TOLERANCE = 1e-3


@dataclass(frozen=True)
class Rotation:
    """Features in a basis in which their columns are orthogonal.

    Attributes:
        values: the rotated features, the first column being 1: float32 ``(N, R)``.
        lengths: the columns' squared lengths, ``(R,)``.
        mean: of the original features, ``(D,)``.
        directions: from centred features to rotated ones, ``(D, R - 1)``.
    """

    values: Tensor
    lengths: Tensor
    mean: Tensor
    directions: Tensor

    @staticmethod
    def of(features: Tensor) -> Rotation:
        """Rotates features, float32 ``(N, D)``."""
        count, mean = len(features), features.mean(0)
        if count < features.shape[1]:
            centred = (features - mean).double()
            lengths, vectors = _eigenvectors(centred @ centred.T)
            directions = centred.T @ (vectors / lengths.sqrt())
        else:
            lengths, directions = _eigenvectors(_gram(features, mean))
        rotated = features.new_ones(count, len(lengths) + 1)
        for start in range(0, count, ROTATED):
            rows = slice(start, start + ROTATED)
            rotated[rows, 1:] = ((features[rows] - mean).double() @ directions).float()
        lengths = torch.cat([lengths.new_full((1,), count), lengths])
        return Rotation(rotated, lengths.float(), mean, directions.float())

    def unrotated(self, solution: Tensor) -> tuple[Tensor, Tensor]:
        """Returns weights ``(K, D)`` and bias ``(K,)`` for the original features, of a solution."""
        weight = (self.directions @ solution[1:]).T
        return weight, solution[0] - weight @ self.mean


def _gram(features: Tensor, mean: Tensor) -> Tensor:
    """Returns the products of all columns minus their mean, ``(D, D)``, in float64."""
    gram = features.new_zeros(features.shape[1], features.shape[1], dtype=torch.float64)
    for start in range(0, len(features), ROTATED):
        rows = (features[start : start + ROTATED] - mean).double()
        gram += rows.T @ rows
    return gram


def _eigenvectors(gram: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the eigenvalues of a positive semidefinite matrix that matter, and their vectors."""
    values, vectors = torch.linalg.eigh(gram)
    matters = values > NEGLIGIBLE * values[-1].clamp(min=1e-12)
    return values[matters], vectors[:, matters]


def solve(
    rotation: Rotation,
    targets: Tensor,
    weights: Tensor,
    penalties: Tensor,
    *,
    start: Tensor | None = None,
    tolerance: float = TOLERANCE,
) -> Tensor:
    """Minimises the weighted sum of the cross-entropy plus half the penalty times the squared weights.

    The bias has no penalty, except for the little that keeps it finite. Of two classes, only the second one's
    logit is computed: the first one's is its negative.

    Args:
        rotation: the features.
        targets: one-hot labels, ``(N, K)``.
        weights: each image's weight in each of the problems, ``(P, N)``; 0 leaves it out.
        penalties: of each problem, ``(P,)``.
        start: where to start from, ``(P, R, K)``; None: zeros.
        tolerance: how small the gradient has to become.

    Returns:
        The solutions, ``(P, R, K)``.
    """
    if targets.shape[1] == 2:
        start = None if start is None else start[:, :, 1:]
        second = _minimise(rotation, targets[:, 1:], weights, penalties, start, tolerance)
        return torch.cat([-second, second], 2)
    return _minimise(rotation, targets, weights, penalties, start, tolerance)


def _minimise(
    rotation: Rotation,
    targets: Tensor,
    weights: Tensor,
    penalties: Tensor,
    start: Tensor | None,
    tolerance: float,
) -> Tensor:
    """Solves as `solve` does; one column of targets is that of the second of two classes."""
    features, classes = rotation.values, targets.shape[1]
    is_binary = classes == 1
    # classes in the middle: softmax is ten times as fast as over a last dimension of few
    targets = targets[:, :, None]
    penalty = penalties.repeat(features.shape[1], 1)
    penalty[0] *= 1e-4
    # Böhning: the Hessian is at most half of the features' second moments, in each class
    steps = (1 / (0.5 * rotation.lengths[:, None] * weights.amax(1) + penalty))[:, None]
    penalty, image_weights, totals = penalty[:, None], weights.T[:, None], weights.sum(1)
    solutions = features.new_zeros(features.shape[1], classes, len(penalties))
    unsolved = torch.arange(len(penalties), device=features.device)
    current = solutions.clone() if start is None else start.movedim(0, 2).contiguous()
    ahead, momentum = current, torch.ones_like(totals)
    for iteration in range(MAX_ITERATIONS):
        logits = (features @ ahead.flatten(1)).view(len(features), classes, -1)
        probabilities = (2 * logits).sigmoid() if is_binary else logits.softmax(1)
        residuals = (probabilities - targets) * image_weights
        gradient = (features.T @ residuals.flatten(1)).view(ahead.shape) + penalty * ahead
        new = ahead - steps * gradient
        moved = new - current
        # where the step goes against the momentum, the momentum begins anew
        uphill = (gradient * moved).sum((0, 1)) > 0
        grown = (1 + (1 + 4 * momentum**2).sqrt()) / 2
        ahead = new + torch.where(uphill, 0.0, (momentum - 1) / grown) * moved
        current, momentum = new, torch.where(uphill, 1.0, grown)
        if iteration % CHECK_EVERY < CHECK_EVERY - 1 and iteration < MAX_ITERATIONS - 1:
            continue
        # the first class's gradient has the same length as the second one's
        norms = (2 if is_binary else 1) * (gradient**2 * steps).sum((0, 1))
        solved = (norms < tolerance**2 * totals) | (iteration == MAX_ITERATIONS - 1)
        solutions[:, :, unsolved[solved]] = current[:, :, solved]
        if solved.all():
            break
        left = ~solved
        unsolved, totals, momentum = unsolved[left], totals[left], momentum[left]
        current, ahead, steps, penalty, image_weights = (
            tensor[:, :, left] for tensor in (current, ahead, steps, penalty, image_weights)
        )
    return solutions.movedim(2, 0)


def draw_folds(labels: NDArray[np.int64], folds: int, generator: np.random.Generator) -> NDArray[np.int64]:
    """Returns each image's fold, ``(N,)``, with each class spread evenly; -1 for a class's only image."""
    drawn = np.full(len(labels), -1)
    start = 0
    for label in np.unique(labels):
        members = generator.permutation(np.flatnonzero(labels == label))
        if len(members) > 1:
            drawn[members] = (start + np.arange(len(members))) % folds
            start += len(members)
    return drawn
