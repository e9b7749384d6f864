"""Predicts every image by a probe that did not see it, fast enough to repeat it with changed labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from tlkit.analysis.folds import draw_folds
from tlkit.utils.kernel import Kernel
from tlkit.utils.logistic import Rotation, solve

#: Inverse penalties that are tried.
STRENGTHS = tuple(4.0**power for power in range(-2, 6))
#: Images that strengths are compared on: all, or of more a random sample.
MAX_COMPARED = 4000
FOLDS = 5
#: The solver's tolerance: the probabilities are compared with one another, not measured.
TOLERANCE = 1e-2


@dataclass(frozen=True)
class OutOfFold:
    """Out-of-fold predictions of all images, and what is needed for those with other labels.

    The probe is logistic regression with a kernel, as the built-in head's; all folds are fitted at once.

    Attributes:
        log_probabilities: of each class for each image, float32 ``(N, classes)``; NaN for a class's only
            image or group, without which the class is unknown.
        strength: the inverse penalty with the lowest log loss.
        rotation: coordinates of the kernel.
        groups: the images' groups, ``(N,)``.
    """

    log_probabilities: NDArray[np.float32]
    strength: float
    rotation: Rotation
    groups: NDArray[np.int64]

    @staticmethod
    @torch.no_grad()
    def of(
        features: NDArray[np.float32], labels: NDArray[np.int64], classes: int, groups: NDArray[np.int64]
    ) -> OutOfFold:
        """Chooses the strength and predicts all images.

        Args:
            features: pooled features, float32 ``(N, C)``.
            labels: int64 ``(N,)``.
            classes: number of classes.
            groups: int64 ``(N,)``; no image is predicted by a probe that saw one of its group.
        """
        pooled = torch.from_numpy(features)
        rotation = Rotation.of(Kernel.of(pooled).coordinates(pooled))
        generator = np.random.default_rng(0)
        sample = generator.permutation(len(labels))[:MAX_COMPARED]
        sampled = Rotation(rotation.values[sample], rotation.lengths, rotation.mean, rotation.directions)
        predicted = _predict(sampled, labels[sample], groups[sample], classes, STRENGTHS, generator)
        of_given = np.take_along_axis(predicted, labels[sample][None, :, None], 2)[:, :, 0]
        is_predicted = ~np.isnan(of_given[0])
        strength = (
            STRENGTHS[int(of_given[:, is_predicted].mean(1).argmax())] if is_predicted.any() else STRENGTHS[0]
        )
        rows = _predict(rotation, labels, groups, classes, [strength], generator)[0]
        return OutOfFold(rows, strength, rotation, groups)

    @torch.no_grad()
    def with_labels(self, labels: NDArray[np.int64], generator: np.random.Generator) -> NDArray[np.float32]:
        """Returns the log probabilities of probes that are fitted to other labels, with folds drawn anew."""
        classes = self.log_probabilities.shape[1]
        strengths = [self.strength]
        predicted = _predict(self.rotation, labels, self.groups, classes, strengths, generator)
        of_strength: NDArray[np.float32] = predicted[0]
        return of_strength

    @property
    def predicted(self) -> NDArray[np.int64]:
        """The most probable class of each image; -1 where there is no prediction."""
        is_predicted = ~np.isnan(self.log_probabilities[:, 0])
        predicted: NDArray[np.int64] = np.nan_to_num(self.log_probabilities).argmax(1)
        return np.where(is_predicted, predicted, -1)


def _predict(
    rotation: Rotation,
    labels: NDArray[np.int64],
    groups: NDArray[np.int64],
    classes: int,
    strengths: Sequence[float],
    generator: np.random.Generator,
) -> NDArray[np.float32]:
    """Returns log probabilities ``(strengths, N, classes)``."""
    folds = draw_folds(labels, groups, FOLDS, generator)
    rows = np.full((len(strengths), len(labels), classes), np.nan, np.float32)
    drawn = np.unique(folds[folds >= 0])
    if not len(drawn):
        return rows
    weights = torch.from_numpy(np.stack([folds != fold for fold in drawn])).float()
    targets = torch.nn.functional.one_hot(torch.from_numpy(labels), classes).float()
    penalties = 1 / torch.tensor(strengths).repeat_interleave(len(drawn))
    solutions = solve(rotation, targets, weights.repeat(len(strengths), 1), penalties, tolerance=TOLERANCE)
    for problem, solution in enumerate(solutions):
        held_out = folds == drawn[problem % len(drawn)]
        logits = rotation.values[held_out] @ solution
        rows[problem // len(drawn), held_out] = logits.log_softmax(1).numpy()
    return rows
