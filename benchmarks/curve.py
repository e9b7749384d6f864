"""Measures how well a learning curve of a quarter of the images tells the accuracy with all of them.

uv run python -m benchmarks.curve --shared ../shared

Each case is a random quarter of a data set, or of some of its classes, with what `tlkit curve` fits to it by
cross-validation. The truth is the same probe's cross-validated accuracy on all images, which has a standard
error of its own. Beside it: a straight line in the logarithm of the number of images.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray

from tlkit.analysis.curve import distinct_images
from tlkit.analysis.features import compute_features, read_labelled
from tlkit.analysis.learning import Learner, Measurement
from tlkit.analysis.power_law import COVERAGE, fit_power_law
from tlkit.data.folds import split_stratified
from tlkit.experiment.observer import Observer
from tlkit.plugins.loader import load_registry
from tlkit.recipe.recipe import make_recipe

SETS = {
    "cats and dogs": ("catsdogs", "catsdogs-photos/train"),
    "waste": ("folder", "datasets/waste"),
    "flowers": ("folder", "datasets/flowers"),
}
METHODS = ("power law", "log-linear line")
#: Draws of a subset of classes, and how many classes it has.
SUBSET_DRAWS, SUBSET_CLASSES = 2, (2, 3, 4)


@dataclass(frozen=True)
class Case:
    """What was forecast for all images, and what is true: accuracies."""

    data: str
    truth: float
    forecasts: dict[str, tuple[float, float, float]]


def log_linear(measurement: Measurement, images: int) -> tuple[float, float, float]:
    """Returns the forecast of a straight line in the logarithm, by least squares, and its interval."""
    design = np.stack([np.ones(len(measurement.images)), np.log(measurement.images)], 1)
    row = np.array([1, np.log(images)]) @ np.linalg.pinv(design)
    accuracy = float(1 - row @ measurement.errors)
    margin = NormalDist().inv_cdf((1 + COVERAGE) / 2) * float(np.sqrt(row @ measurement.covariance @ row))
    return accuracy, accuracy - margin, accuracy + margin


def cases(
    name: str, features: NDArray[np.float32], labels: NDArray[np.int64], draws: int, subsets: int
) -> Iterator[Case]:
    """Yields the cases of a data set: of all its classes, and of random subsets of them."""
    generator = np.random.default_rng(0)
    present = np.unique(labels)
    chosen = [present] + [
        generator.choice(present, generator.choice(SUBSET_CLASSES), replace=False)
        for _ in range(subsets if len(present) > 2 else 0)
    ]
    for number, classes in enumerate(chosen):
        rows = np.flatnonzero(np.isin(labels, classes))
        whole = Learner(features[rows], labels[rows], np.arange(len(rows)), None, seed=number)
        whole.sizes = whole.sizes[:1]
        measured = whole.measure(lambda _: None)
        truth, images = 1 - float(measured.errors[0]), int(measured.images[0])
        for draw in range(SUBSET_DRAWS if number else draws):
            # one of four folds is a quarter
            _, quarter = next(split_stratified(labels[rows], 4, seed=draw))
            alone = np.arange(len(quarter))
            learner = Learner(features[rows[quarter]], labels[rows[quarter]], alone, None, seed=draw)
            part = learner.measure(lambda _: None)
            law = fit_power_law(part.images, part.errors, part.covariance)
            forecasts = (law.interval(images), log_linear(part, images))
            yield Case(name, truth, dict(zip(METHODS, forecasts, strict=True)))


def summarise(of_cases: list[Case], method: str) -> str:
    """Returns a row of a table."""
    rows = np.array([(case.truth, *case.forecasts[method]) for case in of_cases])
    truth, forecast, low, high = rows.T
    error = np.abs(forecast - truth)
    held = ((low <= truth) & (truth <= high)).mean()
    cells = (len(rows), f"{100 * error.mean():.2f}", f"{(error <= 0.01).mean():.0%}")
    return " | ".join(map(str, (*cells, f"{(error <= 0.02).mean():.0%}", f"{held:.0%}")))


def main(
    shared: Annotated[Path, typer.Option(help="The folder of photos and weights.")] = Path("../shared"),
    draws: Annotated[int, typer.Option(help="Quarters of each data set.")] = 6,
    subsets: Annotated[int, typer.Option(help="Subsets of classes of each, with two quarters each.")] = 3,
) -> None:
    """Print a table: how far forecasts are from the truth, and how often the 90% interval holds it."""
    registry, done = load_registry(), []
    typer.echo("| data | method | cases | mean error, points | within 1 | within 2 | held by 90% interval |")
    typer.echo("| --- | --- | ---: | ---: | ---: | ---: | ---: |")
    for name, (source, root) in SETS.items():
        data = {"source": {"name": source}, "root": str((shared / root).absolute())}
        recipe = make_recipe({"name": "curve", "data": data, "phase": []})
        labelled = read_labelled(recipe, registry, Observer())
        computed = compute_features(
            labelled, backbone=f"local-dir:{shared / 'weights/mobilenetv2_100'}", registry=registry
        )
        rows = distinct_images(labelled)
        done += (own := list(cases(name, computed.mean[rows], computed.labels[rows], draws, subsets)))
        for method in METHODS:
            typer.echo(f"| {name} | {method} | {summarise(own, method)} |")
    for method in METHODS:
        typer.echo(f"| all | {method} | {summarise(done, method)} |")


if __name__ == "__main__":
    typer.run(main)
