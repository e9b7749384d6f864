"""Measures how many labels `tlkit next` saves.

uv run python -m benchmarks.active_learning ../shared/datasets/waste local-dir:PATH

The images of the training split count as unlabelled. Twenty at a time are selected and get their labels, a
logistic regression is fitted to all that have one, and its accuracy on the test images is measured. Random
choice goes on for longer, until it is as accurate. The first twenty are `select_typical`'s, except at random.
It is fitted to the principal components of the features, scaled to length 1, since that takes a tenth of the
time. What images are clustered by is computed once, of all training images; they all count for `tlkit next`,
too, if the model holds its training features: without them it clusters the unlabelled images alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression

from tlkit.analysis.features import DatasetFeatures, compute_features, read_labelled
from tlkit.analysis.selection import cluster_positions, select_typical, select_uncertain
from tlkit.analysis.targets import recipe_for
from tlkit.cli.observer import ConsoleObserver
from tlkit.plugins.loader import load_registry

STEP = 20
LABELS = 300
#: Labels of random choice.
RANDOM_LABELS = 600
ACCURACIES = (0.61, 0.64, 0.67, 0.70, 0.72, 0.735, 0.745)

#: Principal components that the classifier sees, and its inverse penalty.
COMPONENTS, STRENGTH = 128, 30.0

#: From where images lie for clustering, unlabelled ones and then labelled ones, probabilities of unlabelled
#: ones and a seed, to which of these are selected.
Select = Callable[[NDArray[np.float32], NDArray[np.float64], int], Sequence[int]]


@dataclass(frozen=True)
class Labelled:
    """Images with where they lie for clustering, what the classifier sees of them, and their labels."""

    positions: NDArray[np.float32]
    components: NDArray[np.float32]
    labels: NDArray[np.int64]


def _next(positions: NDArray[np.float32], probabilities: NDArray[np.float64], seed: int) -> Sequence[int]:
    return [image.index for image in select_uncertain(positions, probabilities, STEP, seed=seed)]


def _next_alone(
    positions: NDArray[np.float32], probabilities: NDArray[np.float64], seed: int
) -> Sequence[int]:
    return _next(positions[: len(probabilities)], probabilities, seed)


def _margin(_positions: NDArray[np.float32], probabilities: NDArray[np.float64], _seed: int) -> Sequence[int]:
    highest = np.sort(probabilities, 1)
    indices: list[int] = np.argsort(highest[:, -1] - highest[:, -2])[:STEP].tolist()
    return indices


def _random(_positions: NDArray[np.float32], probabilities: NDArray[np.float64], seed: int) -> Sequence[int]:
    indices: list[int] = np.random.default_rng(seed).permutation(len(probabilities))[:STEP].tolist()
    return indices


WAYS: dict[str, Select] = {
    "random": _random,
    "without labelled": _next_alone,
    "tlkit next": _next,
    "margin": _margin,
}


def curve(pool: Labelled, test: Labelled, select: Select, labels: int, seed: int) -> list[float]:
    """Returns the accuracy on the test images after each step."""
    labelled, unlabelled = np.array([], np.int64), np.arange(len(pool.labels))
    probabilities = np.zeros((len(unlabelled), 1))
    accuracies = []
    for step in range(labels // STEP):
        draw = 1000 * seed + step
        if step or select is _random:
            indices = select(pool.positions[np.concatenate([unlabelled, labelled])], probabilities, draw)
        else:
            indices = [image.index for image in select_typical(pool.positions, STEP, seed=draw)]
        labelled = np.concatenate([labelled, unlabelled[indices]])
        unlabelled = np.delete(unlabelled, indices)
        classifier = LogisticRegression(C=STRENGTH, tol=1e-3)
        classifier.fit(pool.components[labelled], pool.labels[labelled])
        probabilities = classifier.predict_proba(pool.components[unlabelled])
        accuracies.append(float(classifier.score(test.components, test.labels)))
    return accuracies


def divide(features: DatasetFeatures) -> tuple[Labelled, Labelled]:
    """Returns the images that count as unlabelled, and the test images."""
    is_test = np.array([split == "test" for split in features.labelled.splits])
    scaled = features.mean / np.linalg.norm(features.mean, axis=1, keepdims=True)
    components = PCA(COMPONENTS, random_state=0).fit(scaled[~is_test]).transform(scaled)
    pool, test = (
        Labelled(cluster_positions(features.mean[chosen]), components[chosen], features.labels[chosen])
        for chosen in (~is_test, is_test)
    )
    return pool, test


def labels_needed(accuracies: NDArray[np.float64], goal: float) -> float:
    """Returns the number of labels at which a mean curve first reaches an accuracy; NaN if it does not."""
    highest = np.maximum.accumulate(accuracies)
    labels = STEP * np.arange(1, len(highest) + 1)
    return float(np.interp(goal, highest, labels, left=np.nan, right=np.nan))


def main(
    folder: Path,
    backbone: str,
    seeds: Annotated[int, typer.Option(help="Number of repetitions.")] = 30,
) -> None:
    """Print a table of the labels needed for each accuracy, and each way's share of random choice's."""
    registry, observer = load_registry(), ConsoleObserver()
    labelled = read_labelled(recipe_for(folder), registry, observer)
    features = compute_features(labelled, backbone=backbone, observer=observer, registry=registry)
    pool, test = divide(features)
    means = {}
    for name, select in WAYS.items():
        labels = RANDOM_LABELS if select is _random else LABELS
        with observer.progress(name, seeds, "repetitions") as tick:
            curves = []
            for seed in range(seeds):
                curves.append(curve(pool, test, select, labels, seed))
                tick(1)
        means[name] = np.mean(curves, 0)
        typer.echo(f"{name}: {' '.join(f'{accuracy:.3f}' for accuracy in means[name])}")
    typer.echo(f"| accuracy | {' | '.join(WAYS)} |\n| ---: |{' ---: |' * len(WAYS)}")
    for goal in ACCURACIES:
        needed = [labels_needed(means[name], goal) for name in WAYS]
        shares = [f"{count:.0f} ({count / needed[0]:.2f})" for count in needed]
        cells = ["–" if np.isnan(count) else share for count, share in zip(needed, shares, strict=True)]
        typer.echo(f"| {goal} | {' | '.join(cells)} |")


if __name__ == "__main__":
    typer.run(main)
