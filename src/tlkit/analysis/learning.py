"""Measures a linear probe on nested subsets of the images, many fits at once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from tlkit.analysis.folds import draw_folds
from tlkit.errors import DataError
from tlkit.experiment.observer import Tick
from tlkit.utils.logistic import Rotation, solve

Floats = NDArray[np.float64]
Rows = NDArray[np.int64]
Mask = NDArray[np.bool_]

#: A size is the next larger one divided by this, so that every other one is half.
RATIO = 2**0.5
SIZES = 8
#: Index of the size that is half of the largest.
HALF = 2
#: Folds, or draws where there are test images, and how often the folds are drawn; of many images and classes
#: (images times classes) the second pair: their noise is small, and their fits take long.
EFFORT, LARGE_EFFORT, LARGE = (10, 2), (5, 1), 20_000
#: Principal components of the features that probes are fitted to.
COMPONENTS = 512
#: Inverse penalties that are tried, of features whose mean length is 1, and the size that they are tried at.
STRENGTHS = tuple(4.0**power for power in range(5))
TRIED_AT = 3
#: Logits that are held at a time.
MAX_LOGITS = 2**25


@dataclass(frozen=True)
class Measurement:
    """Which images the probes classified correctly.

    Attributes:
        images: numbers of training images, the largest first, ``(S,)``.
        correct: of each size and draw, the part of its fits' predictions that is correct: ``(S, D, N)`` for
            the images that are tested.
        tested: the rows of these images, ``(N,)``.
        fits: how many subsets of each size a probe was fitted to.
    """

    images: Rows
    correct: Floats
    tested: Rows
    fits: int

    @property
    def errors(self) -> Floats:
        """The mean error at each size, ``(S,)``."""
        errors: Floats = 1 - self.correct.mean((1, 2))
        return errors

    @property
    def covariance(self) -> Floats:
        """The covariance of these means over draws of test images, ``(S, S)``.

        All sizes are tested on the same images, so their errors rise and fall together. Out-of-fold
        predictions, and few images without an error, let it seem smaller than that of independent images with
        one error more: the difference is added to all sizes in common.
        """
        count = len(self.tested)
        covariance: Floats = np.cov(1 - self.correct.mean(1)) / count
        error = (self.errors[0] * count + 1) / (count + 2)
        return covariance + max(0.0, float(error * (1 - error) / count - covariance[0, 0]))


@dataclass(frozen=True)
class _Fits:
    """What is fitted and tested, ``(P, …)``.

    Attributes:
        orders: the rows that each may train on; a prefix of any length is stratified.
        tests: the rows that each is tested on.
        draws: the draw that each belongs to.
    """

    orders: tuple[Rows, ...]
    tests: tuple[Rows, ...]
    draws: tuple[int, ...]

    def first(self, count: int) -> _Fits:
        """Returns the first fits only."""
        return _Fits(self.orders[:count], self.tests[:count], self.draws[:count])


class Learner:
    """Fits linear probes to subsets of labelled images.

    Attributes:
        classes: the labels that images have, ``(K,)``.
        labels: each image's class, an index into them, ``(N,)``.
        sizes: numbers of training images, the largest first, ``(S,)``.
    """

    def __init__(
        self,
        features: NDArray[np.float32],
        labels: Rows,
        groups: Rows,
        held_out: Mask | None,
        *,
        seed: int = 0,
    ) -> None:
        """Draws the subsets.

        Args:
            features: pooled features, float32 ``(N, C)``.
            labels: ``(N,)``.
            groups: ``(N,)``; images of one group are not on both sides of a fold.
            held_out: which images to test on, ``(N,)``; None: all, by cross-validation.
            seed: of the draws.

        Raises:
            DataError: no class has two groups that can be in different folds.
        """
        self.classes, self.labels = np.unique(labels, return_inverse=True)
        classes = len(self.classes)
        self._rotation = _rotate(torch.from_numpy(features))
        self._targets = torch.nn.functional.one_hot(torch.from_numpy(self.labels), classes).float()
        self.folds, self._repeats = LARGE_EFFORT if len(labels) * classes > LARGE else EFFORT
        self._groups = groups
        self._fits = self._draw(held_out, np.random.default_rng(seed))
        if not self._fits.orders:
            raise DataError(
                "no class has two groups of images, of which one could be tested: add images of other groups"
            )
        # a whole cross-validation, or as many draws: groups may be too few for all folds
        self._few_fits = self._fits.first(self.folds if held_out is not None else self._fits.draws.count(0))
        largest = min(map(len, self._fits.orders))
        sizes = (largest / RATIO ** np.arange(SIZES)).round().astype(np.int64)
        self.sizes = sizes[sizes >= 2 * classes]
        self._strength = STRENGTHS[0]
        self._correct_with_all: Floats | None = None

    def _draw(self, held_out: Mask | None, generator: np.random.Generator) -> _Fits:
        orders, tests, draws = [], [], []
        for draw in range(self._repeats if held_out is None else self._repeats * self.folds):
            if held_out is not None:
                folds, parts = np.where(held_out, 0, -1), [0]
            else:
                folds = draw_folds(self.labels, self._groups, self.folds, generator)
                parts = [fold for fold in range(self.folds) if (folds == fold).any()]
            for part in parts:
                rows = np.flatnonzero(folds != part)
                orders.append(rows[_stratified(self.labels[rows], generator)])
                tests.append(np.flatnonzero(folds == part))
                draws.append(draw)
        return _Fits(tuple(orders), tuple(tests), tuple(draws))

    @property
    def steps(self) -> int:
        """How many fits `measure` ticks."""
        return len(self.sizes) * len(self._fits.orders)

    def measure(self, tick: Tick) -> Measurement:
        """Measures all sizes."""
        self._strength = self._choose_strength()
        tested = np.unique(np.concatenate(self._fits.tests))
        correct = []
        for size in self.sizes:
            masks = self._masks(self._fits, size)
            correct.append(self._correct(self._fits, masks)[:, tested])
            tick(len(masks))
        return Measurement(self.sizes, np.stack(correct), tested, len(self._fits.orders))

    def lost_without_half(self, label: int) -> Floats:
        """Returns what is lost at the largest size where half of a class's images are left out.

        Returns:
            By how much the part of correct predictions falls in the first draw, for each image, ``(N,)``;
            NaN where it is not tested.
        """
        fits = self._few_fits
        whole, half = (self._masks(fits, self.sizes[index]) for index in (0, HALF))
        halved = torch.where(torch.from_numpy(self.labels == label), half, whole)
        if self._correct_with_all is None:
            self._correct_with_all = self._correct(fits, whole).mean(0)
        lost: Floats = self._correct_with_all - self._correct(fits, halved).mean(0)
        return lost

    def _masks(self, fits: _Fits, size: int) -> torch.Tensor:
        """Returns which rows each fit trains on, ``(P, N)``, as weights."""
        masks = torch.zeros(len(fits.orders), len(self.labels))
        for mask, order in zip(masks, fits.orders, strict=True):
            mask[torch.from_numpy(order[:size])] = 1
        return masks

    def _correct(self, fits: _Fits, masks: torch.Tensor) -> Floats:
        """Returns whether each draw's predictions are correct, ``(D, N)``; NaN: not tested."""
        correct = np.full((max(fits.draws) + 1, len(self.labels)), np.nan)
        for index, logits in self._predict(fits, masks, self._strength):
            rows = fits.tests[index]
            correct[fits.draws[index], rows] = logits.argmax(1).numpy() == self.labels[rows]
        return correct

    def _choose_strength(self) -> float:
        """Returns the strength with the lowest log loss, in the first draw at one of the sizes."""
        fits = self._few_fits
        masks = self._masks(fits, self.sizes[min(TRIED_AT, len(self.sizes) - 1)])
        losses = []
        for strength in STRENGTHS:
            loss = 0.0
            for index, logits in self._predict(fits, masks, strength):
                truth = torch.from_numpy(self.labels[fits.tests[index]])
                loss += float(torch.nn.functional.cross_entropy(logits, truth, reduction="sum"))
            losses.append(loss)
        return STRENGTHS[int(np.argmin(losses))]

    def _predict(
        self, fits: _Fits, masks: torch.Tensor, strength: float
    ) -> Iterator[tuple[int, torch.Tensor]]:
        """Yields the number of each fit, and the logits of the rows that it is tested on."""
        values = self._rotation.values
        if (masks == masks[0]).all():  # all draws are the whole: one fit is enough
            masks = masks[:1]
        batch = max(1, MAX_LOGITS // self._targets.numel())
        penalties = torch.full((len(masks),), 1 / strength)
        parts = zip(torch.split(masks, batch), torch.split(penalties, batch), strict=True)
        solutions = torch.cat([solve(self._rotation, self._targets, *part) for part in parts])
        for index, rows in enumerate(fits.tests):
            yield index, values[torch.from_numpy(rows)] @ solutions[min(index, len(solutions) - 1)]


def _rotate(features: torch.Tensor) -> Rotation:
    """Returns the largest principal components of features that are scaled to a mean length of 1."""
    rotation = Rotation.of(features / features.norm(dim=1).mean().clamp(min=1e-12))
    # eigenvalues ascend, and the constant column is the first
    columns = [0, *range(max(1, rotation.values.shape[1] - COMPONENTS), rotation.values.shape[1])]
    directions = rotation.directions[:, [column - 1 for column in columns[1:]]]
    return Rotation(rotation.values[:, columns], rotation.lengths[columns], rotation.mean, directions)


def _stratified(labels: Rows, generator: np.random.Generator) -> Rows:
    """Returns a random order in which every prefix has about the classes' proportions."""
    keys = np.empty(len(labels))
    for label in np.unique(labels):
        members = generator.permutation(np.flatnonzero(labels == label))
        keys[members] = (np.arange(len(members)) + generator.random()) / len(members)
    return np.argsort(keys, kind="stable")
