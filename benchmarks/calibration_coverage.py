"""Measures how often the interval of the calibration error holds the true error.

uv run python -m benchmarks.calibration_coverage --draws 200

Confidences are drawn from a skewed distribution above a half. A prediction is correct with a probability
whose log-odds are those of its confidence times a factor: at 1 the classifier is calibrated, below it is
overconfident. The true error is that of 2,000,000 images.
"""

from __future__ import annotations

from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray

from tlkit.evaluation.calibration_error import BINS, calibration_error, calibration_error_interval

TRUTH = 2_000_000
FACTORS = (1.0, 0.9, 0.7, 0.5)
SIZES = (50, 200, 1000)


def draw(
    count: int, factor: float, generator: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Draws confidences, and the probability that each prediction is correct."""
    confidence = 0.5 + 0.5 * generator.beta(8, 1.5, count)
    return confidence, 1 / (1 + ((1 - confidence) / confidence) ** factor)


def true_error(factor: float, generator: np.random.Generator) -> float:
    """Returns the calibration error of very many images, without the noise of their labels."""
    confidence, probability = draw(TRUTH, factor, generator)
    bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
    return float(np.abs(np.bincount(bins, weights=probability - confidence)).sum() / TRUTH)


def main(draws: Annotated[int, typer.Option(help="How many sets of images of each kind.")] = 200) -> None:
    """Prints a table: how often the interval holds the true error, and how long it is."""
    generator = np.random.default_rng(1)
    typer.echo(
        "| factor | images | true error | measured | held | length |\n| --- | --- | --- | --- | --- | --- |"
    )
    for factor in FACTORS:
        truth = 0.0 if factor == 1 else true_error(factor, generator)
        for size in SIZES:
            errors, held, lengths = [], [], []
            for _ in range(draws):
                confidence, probability = draw(size, factor, generator)
                correct = generator.random(size) < probability
                low, high = calibration_error_interval(confidence, correct)
                errors.append(calibration_error(confidence, correct))
                held.append(low <= truth <= high)
                lengths.append(high - low)
            cells = (truth, np.mean(errors), np.mean(held), np.mean(lengths))
            typer.echo(f"| {factor} | {size} | " + " | ".join(f"{cell:.3f}" for cell in cells) + " |")


if __name__ == "__main__":
    typer.run(main)
