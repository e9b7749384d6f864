"""Measures how often the intervals of several labels per image hold the truth.

uv run python -m benchmarks.multilabel --draws 200

Logits of an image are higher by a class's separation where it has the class. Thresholds are chosen on as many
validation images as there are test images. The truth is that of 200,000 images, at the same thresholds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray

from tlkit.evaluation.multilabel import (
    MultilabelScores,
    choose_thresholds,
    evaluate_labels,
    label_probabilities,
    mean_average_precision,
)

TRUTH = 200_000
SIZES = (20, 50, 200, 1000)
SCORES = ("mean_average_precision", "macro_f1", "micro_f1")


@dataclass(frozen=True)
class World:
    """Classes that images are drawn of.

    Attributes:
        name: what they are like.
        shares: the part of the images that has each class.
        separations: how far the logits with and without it are apart, in standard deviations.
    """

    name: str
    shares: NDArray[np.float64]
    separations: NDArray[np.float64]

    def draw(
        self, count: int, generator: np.random.Generator
    ) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Draws probabilities and labels."""
        labels = (generator.random((count, len(self.shares))) < self.shares).astype(np.int64)
        logits = (labels - 0.5) * self.separations + generator.normal(size=labels.shape)
        return label_probabilities(logits), labels


WORLDS = (
    World("five classes", np.array([0.5, 0.3, 0.2, 0.1, 0.05]), np.array([2.0, 1.5, 3.0, 2.0, 2.5])),
    World("two easy classes", np.array([0.5, 0.3]), np.array([4.0, 3.5])),
    World("two hard classes", np.array([0.3, 0.1]), np.array([2.0, 2.0])),
    World("long tail", np.array([*np.linspace(0.4, 0.05, 8), 0.004, 0.004]), np.full(10, 2.5)),
    World("twenty classes", np.full(20, 0.1), np.linspace(1.0, 4.0, 20)),
)


def true_f1(
    probabilities: NDArray[np.float64], labels: NDArray[np.int64], thresholds: NDArray[np.float64]
) -> tuple[float, float]:
    """Returns macro and micro F1 of very many images."""
    answers = probabilities >= thresholds
    hits, said, have = (answers & (labels == 1)).sum(0), answers.sum(0), labels.sum(0)
    return float((2 * hits / (said + have)).mean()), float(2 * hits.sum() / (said.sum() + have.sum()))


def evaluate(
    world: World, size: int, generator: np.random.Generator
) -> tuple[MultilabelScores, NDArray[np.float64]]:
    """Returns the scores of a draw, and the thresholds that they are at."""
    thresholds = choose_thresholds(*world.draw(size, generator))
    names = [str(number) for number in range(len(world.shares))]
    probabilities, labels = world.draw(size, generator)
    while not labels.any():
        probabilities, labels = world.draw(size, generator)
    return evaluate_labels(probabilities, labels, names, thresholds), thresholds


def main(draws: Annotated[int, typer.Option(help="How many sets of images of each size.")] = 200) -> None:
    """Prints a table: how often each interval holds the truth, and how long it is."""
    typer.echo("| classes | score | images | truth | measured | held | length |\n" + "| --- " * 7 + "|")
    for world in WORLDS:
        generator = np.random.default_rng(1)
        population = world.draw(TRUTH, generator)
        precision = mean_average_precision(*population)
        for size in SIZES:
            rows: dict[str, list[tuple[float, float, bool, float]]] = {name: [] for name in SCORES}
            for _ in range(draws):
                scores, thresholds = evaluate(world, size, generator)
                truths = (precision, *true_f1(*population, thresholds))
                for name, truth in zip(SCORES, truths, strict=True):
                    estimate = getattr(scores, name)
                    low, high = estimate.ci95
                    rows[name].append((truth, estimate.value, low <= truth <= high, high - low))
            for name, row in rows.items():
                cells = " | ".join(f"{value:.3f}" for value in np.mean(row, axis=0))
                typer.echo(f"| {world.name} | {name.replace('_', ' ')} | {size} | {cells} |")


if __name__ == "__main__":
    typer.run(main)
