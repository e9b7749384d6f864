"""tlkit: the same work as a recipe, from a cold start; then the cost of a second experiment."""

from __future__ import annotations

import csv
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil
import scipy.stats  # noqa: F401  what a run imports later is imported here: it counts as every run's start
import sklearn.metrics  # noqa: F401

import tlkit
import tlkit.experiment.runner
from benchmarks.work import DROPOUT, HIDDEN, LR, MOMENTUM, Work, contend
from tlkit.experiment.log import FeaturesComputed, read_events
from tlkit.runtime.process import keep_freed_memory

RECIPE = """
name = "benchmark"
data = {{ source = "folder", root = "{folder}" }}
backbone = {{ name = "vgg16", features = "map", weights = "none" }}
preprocess = {{ size = {size}, resize = "squash", interpolation = "bilinear" }}
head = {{ name = "mlp", hidden = {hidden}, dropout = {dropout} }}

[training]
epochs = {epochs}
batch_size = {batch}
precision = "{precision}"
optimizer = {{ name = "sgd", lr = {lr}, momentum = {momentum}, nesterov = false }}

[[phase]]
name = "fine-tune"
freeze = {{ name = "all-but-last-blocks", blocks = 1 }}
"""
#: Epochs of a second experiment; all take the same time.
SECOND = 5
AUGMENT = 'augmentation = { name = "affine", zoom = 0.2, flip = true, views = 8 }\n'


def measure(recipe: Path, out: Path, **overrides: Any) -> dict[str, Any]:
    """Measures one run: its seconds, those of each epoch and of the frozen pass, and its test accuracy."""
    settings = {key.replace("__", "."): value for key, value in overrides.items()}
    began = time.perf_counter()
    run = tlkit.run(recipe, out=out, overrides=settings)
    seconds = time.perf_counter() - began
    (phase,) = run.results.phases
    with (out / "phases" / phase.name / "history.csv").open() as file:
        epochs = [float(row["seconds"]) for row in csv.DictReader(file)]
    passes = [event for event in read_events(out / "log.jsonl") if isinstance(event, FeaturesComputed)]
    return {
        "seconds": seconds,
        "epochs": epochs,
        "frozen_pass": sum(event.seconds for event in passes),
        "frozen_views": sum(sum(event.computed.values()) for event in passes),
        "test_accuracy": phase.test.accuracy,
        "reused": phase.features.reused,
    }


def main(work: Work) -> dict[str, Any]:
    started = time.time() - psutil.Process().create_time()
    keep_freed_memory()  # as the command line does
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["TLKIT_CACHE"] = str(folder / "cache")
        recipe = folder / "recipe.toml"
        text = RECIPE.format(
            folder=Path(work.folder).resolve(),
            size=work.size,
            hidden=HIDDEN,
            dropout=DROPOUT,
            epochs=work.epochs,
            batch=work.batch,
            precision=work.precision,
            lr=LR,
            momentum=MOMENTUM,
        )
        recipe.write_text(text + (AUGMENT if work.augment else ""))
        first = measure(recipe, folder / "first")
        few = {"training__epochs": min(work.epochs, SECOND)}
        rate = measure(recipe, folder / "rate", training__optimizer__lr=3 * LR, **few)
        # this needs the whole backbone's features: the first such run computes them, the second is reported
        head_only = {"phase__fine-tune__freeze": "backbone", **few}
        head_first = measure(recipe, folder / "head-first", **head_only)
        head = measure(recipe, folder / "head", head__hidden=2 * HIDDEN, **head_only)
        predictor = tlkit.load(folder / "first")
        files = work.files("test")
        began = time.perf_counter()
        predictor.predict(files)
        predict = time.perf_counter() - began
    second = {"rate": rate, "head_first": head_first, "head": head}
    return {**first, "process_start": started, "predict": predict, "second": second}


if __name__ == "__main__":
    contend(main)
