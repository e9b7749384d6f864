"""What a run reports is what its model folder gives, whatever the precision that it trained in."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from small_runs import Runner

import tlkit


def rows(folder: Path, phase: str) -> list[dict[str, str]]:
    with (folder / "phases" / phase / "predictions.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("cache", [True, False], ids=["cached", "whole"])
def test_a_runs_numbers_are_its_models(precision: str, cache: bool, run: Runner, few_photos: Path) -> None:
    """With bfloat16 a run and its model once disagreed about up to 3 of 121 images."""
    finished = run(
        overrides={
            "training.precision": precision,
            "features.cache": cache,
            "training.epochs": 1,
            "preprocess.size": 32,
        }
    )
    for result in finished.results.phases:
        predictor = tlkit.load(finished.folder, phase=result.name)
        written = rows(finished.folder, result.name)
        probabilities = predictor.predict_proba([few_photos / f"{row['id']}" for row in written])
        reported = np.array([[float(row["p_cat"]), float(row["p_dog"])] for row in written])
        assert np.abs(probabilities - reported).max() < 1e-5
        test = [row for row in written if row["split"] == "test"]
        assert result.test.correct == sum(row["label"] == row["predicted"] for row in test)


def test_kept_weights_keep_their_results(run: Runner) -> None:
    """With a learning rate of 0 no epoch is better than the weights that the phase starts from."""
    finished = run(
        overrides={
            "training.precision": "bfloat16",
            "training.epochs": 1,
            "preprocess.size": 32,
            "phase.fine-tune.optimizer": {"name": "sgd", "lr": 0.0},
        }
    )
    first, second = finished.results.phases
    assert second.best_epoch == 0
    assert (second.val, second.test, second.temperature) == (first.val, first.test, first.temperature)
    assert [(versus.gained, versus.lost) for versus in second.versus] == [(0, 0)]
    assert rows(finished.folder, "bottleneck") == rows(finished.folder, "fine-tune")
