"""Counts the features that scikit-learn's searches over tlkit's heads compute, and times them.

TLKIT_CACHE=/tmp/empty uv run python -m benchmarks.grid_search ../shared/catsdogs-photos/train \
    local-dir:../shared/weights/mobilenetv2_100

A grid of heads is searched by cross-validation; then one head is cross-validated by scikit-learn and by
`tlkit.run`, on the run's folds.
"""

from __future__ import annotations

import csv
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any
from unittest import mock

import typer
from sklearn.model_selection import GridSearchCV, PredefinedSplit, cross_val_score

import tlkit
from tlkit.experiment import frozen_pass
from tlkit.recipe.recipe import make_recipe

HEADS = ["probe", {"name": "probe", "kernel": False}, "prototype", "knn", {"name": "knn", "neighbours": 5}]
FOLDS = 5


@contextmanager
def counting() -> Iterator[list[int]]:
    """Yields a list that the number of image views of every frozen pass is appended to."""
    numbers: list[int] = []
    extract = frozen_pass.extract_features

    def counted(jobs: Any, *arguments: Any) -> Any:
        numbers.append(sum(map(len, jobs)))
        return extract(jobs, *arguments)

    with mock.patch.object(frozen_pass, "extract_features", counted):
        yield numbers


def run_folds(paths: list[Path], labels: list[str], backbone: str, folder: Path) -> tlkit.Run:
    """Cross-validates the probe on links to the photos, in a folder per class."""
    for path, label in zip(paths, labels, strict=True):
        link = folder / "photos" / label / path.name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(path.absolute())
    recipe = make_recipe(
        {
            "name": "folds",
            "data": {"source": "folder", "root": str(folder / "photos"), "folds": FOLDS},
            "backbone": {"name": backbone},
            "head": "probe",
            "training": {"mirror": True, "precision": "float32"},
            "phase": [{"name": "probe"}],
        }
    )
    return tlkit.run(recipe, out=folder / "run")


def main(
    photos: Annotated[Path, typer.Argument(help="Photos in Kaggle's flat layout: cat.1.jpg, dog.1.jpg.")],
    backbone: Annotated[str, typer.Argument(help="Any backbone's name.")],
    count: Annotated[int, typer.Option(help="Number of photos.")] = 2000,
) -> None:
    """Print what was computed, how long it took, and both cross-validations' accuracies."""
    kinds = [sorted(photos.glob(f"{kind}.*.jpg"))[: count // 2] for kind in ("cat", "dog")]
    paths = [path for kind in kinds for path in kind]
    labels = [path.name[:3] for path in paths]
    search = GridSearchCV(tlkit.ImageClassifier(backbone), {"head": HEADS}, cv=FOLDS, error_score="raise")
    for name in ("first", "again"):
        began = time.perf_counter()
        with counting() as computed:
            search.fit(paths, labels)
        seconds = time.perf_counter() - began
        typer.echo(
            f"{name}: {len(HEADS)} heads, {FOLDS} folds, {len(paths):,} photos: {sum(computed):,} views "
            f"computed in {seconds:.1f} s"
        )
    for head, accuracy in zip(HEADS, search.cv_results_["mean_test_score"], strict=True):
        typer.echo(f"  {head}: {accuracy:.4f}")
    with tempfile.TemporaryDirectory() as folder, counting() as computed:
        run = run_folds(paths, labels, backbone, Path(folder))
        with (run.folder / "splits.csv").open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        scores = cross_val_score(
            tlkit.ImageClassifier(backbone),
            [Path(folder) / "photos" / row["id"] for row in rows],
            [row["label"] for row in rows],
            cv=PredefinedSplit([int(row["folds"]) for row in rows]),
        )
    out_of_fold = run.results.phases[0].out_of_fold
    assert out_of_fold is not None
    typer.echo(f"tlkit.run:       {out_of_fold.fold_accuracies}")
    typer.echo(f"cross_val_score: {tuple(scores.tolist())}; {sum(computed):,} image views computed for both")


if __name__ == "__main__":
    typer.run(main)
