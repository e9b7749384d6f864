"""Fits a power law to a learning curve, with its uncertainty.

The error of a classifier falls with the number of training images as ``floor + a * images ** -exponent``
(Mahmood et al., "How much more data do I need?", 2022). A few sizes do not determine three parameters, so all
plausible laws are kept, each with its posterior probability. "Learning curves" in benchmarks/RESULTS.md
compares this with other forms.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

#: Median of the exponent's prior, and the standard deviation of its logarithm.
EXPONENT, EXPONENT_SPREAD = 0.35, 0.5
#: Standard deviation of what a power law cannot describe, in accuracy.
MISFIT = 0.003
#: Number of floors, of exponents, and of errors for each pair of them.
FLOORS, EXPONENTS, ERRORS = 40, 31, 15
#: The interval that is reported holds this part of the posterior.
COVERAGE = 0.9


@dataclass(frozen=True)
class PowerLaw:
    """Plausible learning curves.

    Attributes:
        images: the number of images that `error` is for.
        error: the error at that size in each curve, ``(M,)``.
        floor: the error without end of images, as a part of `error`, ``(M,)``.
        exponent: ``(M,)``.
        weight: the curves' probabilities, ``(M,)``.
    """

    images: float
    error: Floats
    floor: Floats
    exponent: Floats
    weight: Floats

    def accuracies(self, images: float) -> Floats:
        """Returns the accuracy with that many images in each curve, ``(M,)``."""
        falling = (1 - self.floor) * (images / self.images) ** -self.exponent
        accuracies: Floats = 1 - (self.error * (self.floor + falling)).clip(0, 1)
        return accuracies

    def interval(self, images: float) -> tuple[float, float, float]:
        """Returns the median of the accuracy with that many images, and its 90% interval."""
        accuracies = self.accuracies(images)
        order = np.argsort(accuracies)
        below = self.weight[order].cumsum()
        tail = (1 - COVERAGE) / 2
        median, low, high = accuracies[order][np.searchsorted(below, (0.5, tail, 1 - tail))].tolist()
        return median, low, high

    def probability(self, accuracy: float, images: float) -> float:
        """Returns the probability that the accuracy with that many images is at least `accuracy`."""
        return float(self.weight[self.accuracies(images) >= accuracy].sum())


def fit_power_law(images: NDArray[np.int64], errors: Floats, covariance: Floats) -> PowerLaw:
    """Computes the posterior over floors and exponents on a grid, and over the error in closed form.

    The prior of the floor falls linearly from 0 to the error at the largest size; that of the exponent is
    log-normal.

    Args:
        images: numbers of training images, the largest first, ``(S,)``.
        errors: the mean error measured at each, ``(S,)``.
        covariance: of these means, ``(S, S)``.
    """
    ratios = images / images[0]
    deviations = np.linspace(-2.5, 2.5, EXPONENTS)
    exponents = EXPONENT * np.exp(EXPONENT_SPREAD * deviations)
    floors = (np.arange(FLOORS) + 0.5) / FLOORS
    # errors are proportional to the error at the largest size: linear regression on one column
    columns = floors[:, None, None] + (1 - floors[:, None, None]) * ratios ** -exponents[:, None]
    precision = np.linalg.inv(covariance + MISFIT**2 * np.eye(len(images)))
    weighted = columns @ precision
    information = (weighted * columns).sum(2)
    estimates = weighted @ errors / information
    squares = errors @ precision @ errors - information * estimates**2
    log_prior = np.log(1 - floors)[:, None] - deviations**2 / 2
    log_weights = log_prior - (squares + np.log(information)) / 2
    weights = np.exp(log_weights - log_weights.max())
    normal = NormalDist()
    quantiles = np.array([normal.inv_cdf((index + 0.5) / ERRORS) for index in range(ERRORS)])
    error = estimates[:, :, None] + quantiles / np.sqrt(information)[:, :, None]
    shape = error.shape
    return PowerLaw(
        images=float(images[0]),
        error=error.ravel(),
        floor=np.broadcast_to(floors[:, None, None], shape).ravel(),
        exponent=np.broadcast_to(exponents[:, None], shape).ravel(),
        weight=np.broadcast_to((weights / weights.sum())[:, :, None] / ERRORS, shape).ravel(),
    )
