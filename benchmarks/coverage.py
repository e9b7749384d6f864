"""Measures how often the interval of a cross-validation holds the final classifier's true accuracy.

uv run python -m benchmarks.coverage --worlds 100

In each world, classes are mixtures of two Gaussians at random places, as far apart as a random factor says. A
probe is cross-validated on a few images of each class, as `tlkit fit` does it, then fitted to all of them.
Its true accuracy is that on 20,000 more images.
"""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from statistics import mean
from typing import Annotated

import numpy as np
import torch
import typer
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedKFold

from tlkit.builtin.probe import Probe
from tlkit.evaluation.intervals import independent_images, wilson

TRUTH = 20_000
FEATURES = 64
FOLDS = 10
#: Ways to cross-validate: repeats, and what the number of images is divided by; None: as tlkit does.
WAYS = {
    "10 folds, n": (1, 1.0),
    "10 folds, as tlkit": (1, None),
    "10 x 10 folds, n": (10, 1.0),
    "10 x 10 folds, n / 1.2": (10, 1.2),
    "10 x 10 folds, as tlkit": (10, None),
}


@dataclass(frozen=True)
class World:
    """Labelled features without end."""

    centres: NDArray[np.float64]

    @staticmethod
    def random(classes: int, generator: np.random.Generator) -> World:
        """Returns a world whose classes lie from nearly together to far apart."""
        distance = generator.uniform(0.15, 0.6)
        return World(distance * generator.normal(size=(classes, 2, FEATURES)))

    def draw(self, per_class: int, generator: np.random.Generator) -> tuple[torch.Tensor, NDArray[np.int64]]:
        """Draws features, positive as those behind a ReLU, and labels."""
        labels = np.repeat(np.arange(len(self.centres)), per_class)
        centres = self.centres[labels, generator.integers(2, size=len(labels))]
        features = np.maximum(centres + generator.normal(size=centres.shape) + 0.5, 0)
        return torch.from_numpy(features).float(), labels


def fit(features: torch.Tensor, labels: NDArray[np.int64], classes: int) -> Probe:
    """Fits a probe."""
    probe = Probe((FEATURES,), classes, kernel=True).eval()
    probe.fit_features(features, torch.from_numpy(labels), torch.ones(len(labels)))
    return probe


def held_by_intervals(number: int, per_class: int, classes: int) -> dict[str, tuple[bool, float, float]]:
    """Returns for each way whether its interval holds the truth, its width, and its estimate's error."""
    torch.set_num_threads(1)
    generator = np.random.default_rng([number, per_class, classes])
    world = World.random(classes, generator)
    features, labels = world.draw(per_class, generator)
    more, truths = world.draw(TRUTH // classes, generator)
    with torch.no_grad():
        truth = float((fit(features, labels, classes)(more).argmax(1).numpy() == truths).mean())
        predicted = np.zeros((10, len(labels), classes))
        for repeat in range(len(predicted)):
            splitter = StratifiedKFold(min(FOLDS, per_class), shuffle=True, random_state=repeat)
            for train, held_out in splitter.split(labels, labels):
                probe = fit(features[train], labels[train], classes)
                predicted[repeat, held_out] = probe(features[held_out]).softmax(1).numpy()
    results = {}
    for name, (repeats, divisor) in WAYS.items():
        estimate = float((predicted[:repeats].mean(0).argmax(1) == labels).mean())
        worth = len(labels) / divisor if divisor else independent_images(len(labels))
        low, high = wilson(estimate, worth)
        results[name] = (low <= truth <= high, high - low, estimate - truth)
    return results


def main(
    worlds: Annotated[int, typer.Option(help="Number of worlds per row.")] = 600,
    largest: Annotated[int, typer.Option(help="The largest number of images per class.")] = 200,
    processes: int = 2,
) -> None:
    """Print a table of coverages."""
    typer.echo(f"| classes | images per class | {' | '.join(WAYS)} | width | bias |")
    typer.echo("| ---: | ---: |" + " ---: |" * (len(WAYS) + 2))
    with ProcessPoolExecutor(processes) as pool:
        for per_class in (10, 50, 200):
            for classes in (2, 5):
                if per_class > largest:
                    continue
                task = partial(held_by_intervals, per_class=per_class, classes=classes)
                results = list(pool.map(task, range(worlds)))
                cells = [f"{mean(result[name][0] for result in results):.3f}" for name in WAYS]
                last = [result[list(WAYS)[-1]] for result in results]
                width, bias = mean(row[1] for row in last), mean(row[2] for row in last)
                row = " | ".join([str(classes), str(per_class), *cells, f"{width:.3f}", f"{bias:+.3f}"])
                typer.echo(f"| {row} |")


if __name__ == "__main__":
    typer.run(main)
