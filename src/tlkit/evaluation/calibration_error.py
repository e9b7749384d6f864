"""Expected calibration error of the top class (Guo et al. 2017), and how certain it is.

Confidence is binned here, since scikit-learn's calibration curve has no counts per bin.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

BINS = 15
#: Bootstrap samples of an interval.
RESAMPLES = 1000
#: Images that are drawn at a time: few enough for the processor's cache.
DRAWN_AT_ONCE = 100_000
#: Upper end of a two-sided 95% interval.
UPPER = 0.975


@dataclass(frozen=True)
class CalibrationBins:
    """Predictions grouped by confidence.

    Attributes:
        counts: number of images per bin, ``(BINS,)``.
        accuracy: fraction of correct predictions per bin; 0 in empty bins.
        confidence: mean confidence per bin; 0 in empty bins.
    """

    counts: NDArray[np.int64]
    accuracy: NDArray[np.float64]
    confidence: NDArray[np.float64]


def calibration_bins(confidence: NDArray[np.floating], correct: NDArray[np.bool_]) -> CalibrationBins:
    """Groups predictions into `BINS` bins of equal width by confidence.

    Args:
        confidence: probability of the predicted class, ``(N,)``.
        correct: whether the predicted class is the label, ``(N,)``.
    """
    index = _bin_of(confidence)
    counts = np.bincount(index, minlength=BINS)
    divisor = counts.clip(min=1)
    return CalibrationBins(
        counts,
        np.bincount(index, weights=correct, minlength=BINS) / divisor,
        np.bincount(index, weights=confidence, minlength=BINS) / divisor,
    )


def calibration_error(confidence: NDArray[np.floating], correct: NDArray[np.bool_]) -> float:
    """Computes the expected calibration error; arguments as for `calibration_bins`."""
    bins = calibration_bins(confidence, correct)
    return float((bins.counts * np.abs(bins.accuracy - bins.confidence)).sum() / len(correct))


def calibration_error_interval(
    confidence: NDArray[np.floating], correct: NDArray[np.bool_], *, independent: float | None = None
) -> tuple[float, float]:
    """Computes a 95% bootstrap interval of the expected calibration error.

    Noise within bins adds to an absolute difference, so the error is biased upward, and bootstrap samples of
    it once more: their lower quantile may lie above the truth. Only the upper quantile u is used: around an
    error e the interval is (2e - u, u), below e the basic bootstrap interval and above it the percentile
    interval (Davison and Hinkley, "Bootstrap Methods and their Application", 1997, sections 5.2 and 5.3). It
    begins at 0 where a perfectly calibrated classifier of these confidences would show an error as large in
    over 2.5% of cases (Bröcker and Smith, "Increasing the Reliability of Reliability Diagrams", 2007). How
    often it held the true error: "Intervals" in benchmarks/RESULTS.md.

    Args:
        confidence: probability of the predicted class, ``(N,)``.
        correct: whether the predicted class is the label, ``(N,)``.
        independent: how many independent predictions they are worth, which is how many images a bootstrap
            sample has; all of them unless given.
    """
    error, size = calibration_error(confidence, correct), round(independent or len(correct))
    generator = np.random.default_rng(0)  # the same interval for the same predictions
    upper = max(error, float(np.quantile(_resampled_errors(confidence, correct, size, generator), UPPER)))
    if error <= np.quantile(_errors_if_calibrated(confidence, size, generator), UPPER):
        return 0.0, min(1.0, upper)
    return max(0.0, 2 * error - upper), min(1.0, upper)


def _resampled_errors(
    confidence: NDArray[np.floating], correct: NDArray[np.bool_], size: int, generator: np.random.Generator
) -> NDArray[np.float64]:
    """Returns the errors of bootstrap samples of `size` images."""
    index = _bin_of(confidence)
    gaps: NDArray[np.float64] = correct - confidence.astype(np.float64)
    chunk = max(1, min(RESAMPLES, DRAWN_AT_ONCE // size))
    errors: list[NDArray[np.float64]] = []
    for begin in range(0, RESAMPLES, chunk):
        rows = min(chunk, RESAMPLES - begin)
        drawn = generator.integers(len(gaps), size=(rows, size), dtype=np.int32)
        cells = index.take(drawn) + BINS * np.arange(rows)[:, None]
        sums = np.bincount(cells.ravel(), weights=gaps.take(drawn).ravel(), minlength=rows * BINS)
        errors.append(np.abs(sums.reshape(rows, BINS)).sum(1) / size)
    return np.concatenate(errors)


def _errors_if_calibrated(
    confidence: NDArray[np.floating], size: int, generator: np.random.Generator
) -> NDArray[np.float64]:
    """Returns errors of `size` images if each were correct with the probability that its confidence is.

    The sum of a bin's differences is drawn from the normal distribution with their variance.
    """
    variances = np.bincount(_bin_of(confidence), weights=confidence * (1 - confidence), minlength=BINS)
    deviations = np.sqrt(variances.clip(0) / len(confidence) / size)
    errors: NDArray[np.float64] = (np.abs(generator.normal(size=(RESAMPLES, BINS))) * deviations).sum(1)
    return errors


def _bin_of(confidence: NDArray[np.floating]) -> NDArray[np.int64]:
    index: NDArray[np.int64] = np.digitize(confidence, np.linspace(0, 1, BINS + 1)) - 1
    return index.clip(0, BINS - 1)
