"""How many of the nearest neighbours of images are found in the index that many images have.

    python -m benchmarks.neighbours local-dir:PATH ../shared/datasets/flowers ../shared/datasets/waste

The photos of all folders are one set. What is found by comparing all pairs is the truth.
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import typer
from numpy.typing import NDArray

from tlkit import Observer, load_registry
from tlkit.analysis import neighbours
from tlkit.analysis.duplicates import LEAST_SIMILARITY, NEIGHBOURS
from tlkit.analysis.features import compute_features, read_labelled
from tlkit.analysis.neighbours import Neighbours, nearest
from tlkit.analysis.targets import recipe_for


def search(features: NDArray[np.float32], most_exact: int) -> tuple[Neighbours, float]:
    """Returns the neighbours, and the seconds of CPU that they take."""
    neighbours.MAX_EXACT = most_exact
    started = time.process_time()
    return nearest(features, NEIGHBOURS), time.process_time() - started


def main(backbone: str, folders: list[Path]) -> None:
    """Print the fraction of the 20 nearest, of the nearest one and of those that copies are sought among."""
    registry = load_registry()
    images = [
        compute_features(
            read_labelled(recipe_for(folder), registry, Observer()), backbone=backbone, registry=registry
        )
        for folder in folders
    ]
    features = np.concatenate([image.mean for image in images])
    nearest(features[:1000], NEIGHBOURS)  # the first product of a process takes longer
    exact, exact_seconds = search(features, len(features))
    found, seconds = search(features, 0)
    hits = np.array([np.isin(*rows) for rows in zip(exact.indices, found.indices, strict=True)])
    similar = exact.similarities >= LEAST_SIMILARITY
    cells = [hits.mean(), hits[:, 0].mean(), hits[similar].mean()]
    recalls = " | ".join(f"{cell:.4f}" for cell in cells)
    typer.echo("| among | of 20 | nearest | similar | seconds of CPU | all pairs |")
    typer.echo("|" + " ---: |" * 6)
    typer.echo(f"| {len(features):,} | {recalls} | {seconds:.1f} | {exact_seconds:.1f} |")


if __name__ == "__main__":
    typer.run(main)
