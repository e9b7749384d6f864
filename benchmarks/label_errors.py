"""Measures how well label errors are found that are drawn at random, beside cleanlab's default.

uv run python -m benchmarks.label_errors ../shared/datasets/waste --draws 3

In each draw, a fraction of the labels is changed at random. Errors that the images had before count as false
alarms, for both. cleanlab's default (confident learning, Northcutt et al. 2021; `prune_by_noise_rate`
on counts of confident images) is that of the package, where it is installed; its probabilities
are out of fold, by scikit-learn's LogisticRegression.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from time import perf_counter
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray

from tlkit.analysis.features import compute_features, read_labelled
from tlkit.analysis.label_errors import find_cut, score_labels
from tlkit.analysis.neighbours import nearest
from tlkit.analysis.out_of_fold import OutOfFold
from tlkit.analysis.targets import recipe_for
from tlkit.experiment.observer import Observer
from tlkit.plugins.loader import load_registry


def change_labels(
    labels: NDArray[np.int64], fraction: float, classes: int, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Changes labels at random; returns them and which are wrong."""
    generator = np.random.default_rng(seed)
    chosen = generator.choice(len(labels), round(fraction * len(labels)), replace=False)
    changed, wrong = labels.copy(), np.zeros(len(labels), bool)
    changed[chosen] = (labels[chosen] + generator.integers(1, classes, len(chosen))) % classes
    wrong[chosen] = True
    return changed, wrong


def measure(listed: NDArray[np.bool_], wrong: NDArray[np.bool_]) -> tuple[float, float, float]:
    """Returns F1, precision and recall."""
    hits = int((listed & wrong).sum())
    precision, recall = hits / max(1, int(listed.sum())), hits / int(wrong.sum())
    return 2 * precision * recall / max(1e-9, precision + recall), precision, recall


def cleanlab(features: NDArray[np.float32], labels: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Returns which labels cleanlab's default lists."""
    from cleanlab.filter import find_label_issues
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import cross_val_predict

    model = LogisticRegression(max_iter=1000)
    probabilities = cross_val_predict(model, features, labels, method="predict_proba")
    listed: NDArray[np.bool_] = find_label_issues(labels, probabilities, n_jobs=1)
    return listed


def tlkit_audit(
    features: NDArray[np.float32], labels: NDArray[np.int64], classes: int
) -> tuple[NDArray[np.bool_], Sequence[float]]:
    """Returns which labels `tlkit audit` lists, its estimates of precision and recall, and the seconds."""
    started = perf_counter()
    neighbours = nearest(features, 15)
    out_of_fold = OutOfFold.of(features, labels, classes, np.arange(len(labels)))
    cut = find_cut(labels, neighbours, out_of_fold, Observer())
    scores, _ = score_labels(labels, out_of_fold.log_probabilities, neighbours)
    accuracy = float((out_of_fold.predicted == labels).mean())
    return scores >= cut.score, (cut.precision, cut.recall, accuracy, perf_counter() - started)


def main(
    folder: Path,
    backbone: Annotated[str, typer.Option(help="Its features are used.")] = "efficientnet-lite0",
    classes: Annotated[str, typer.Option(help="Only these, comma-separated.")] = "",
    draws: Annotated[int, typer.Option(help="Number of draws per row.")] = 3,
    compare: Annotated[bool, typer.Option(help="Run cleanlab too, which has to be installed.")] = False,
) -> None:
    """Print a table: means of the draws."""
    registry = load_registry()
    images = compute_features(
        read_labelled(recipe_for(folder), registry, Observer()), backbone=backbone, registry=registry
    )
    names = images.labelled.classes
    chosen = [names.index(name) for name in classes.split(",")] if classes else range(len(names))
    kept = np.isin(images.labels, chosen)
    features, labels = images.mean[kept], np.searchsorted(np.sort(chosen), images.labels[kept])
    typer.echo("| changed | F1 | precision | recall | estimated precision | recall | accuracy | seconds |")
    typer.echo("| ---: |" + " ---: |" * 7)
    for fraction in (0.02, 0.05, 0.1):
        rows, others = [], []
        for seed in range(draws):
            changed, wrong = change_labels(labels, fraction, len(chosen), seed)
            listed, about = tlkit_audit(features, changed, len(chosen))
            rows.append([*measure(listed, wrong), *about])
            if compare:
                others.append(measure(cleanlab(features, changed), wrong))
        cells = " | ".join(f"{value:.2f}" for value in np.mean(rows, 0))
        typer.echo(f"| {fraction:.0%} | {cells} |")
        if compare:
            cells = " | ".join(f"{value:.2f}" for value in np.mean(others, 0))
            typer.echo(f"| {fraction:.0%}, cleanlab | {cells} | | | | |")


if __name__ == "__main__":
    typer.run(main)
