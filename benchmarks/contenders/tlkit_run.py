"""tlkit: the same work as a recipe, from a cold start; then what a second experiment costs."""

from __future__ import annotations

import csv
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil
import tlkit.runs
import torchmetrics.functional.classification  # noqa: F401  what a run loads counts as every run's start

import tlkit
from benchmarks.work import DROPOUT, HIDDEN, LR, MOMENTUM, Work, contend
from tlkit.runtime.memory import keep_freed_memory

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
#: Epochs of a second experiment: all are alike.
SECOND = 5
AUGMENT = 'augmentation = { name = "affine", zoom = 0.2, flip = true, views = 8 }\n'


def measured(recipe: Path, out: Path, **changes: Any) -> dict[str, Any]:
    """One run: its seconds, those of each epoch and of the frozen pass, and its test accuracy."""
    began = time.perf_counter()
    run = tlkit.run(recipe, out=out, set={key.replace("__", "."): value for key, value in changes.items()})
    seconds = time.perf_counter() - began
    (phase,) = run.results["phases"]
    with (out / "phases" / phase["name"] / "history.csv").open() as file:
        epochs = [float(row["seconds"]) for row in csv.DictReader(file)]
    log = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    passes = [line for line in log if line["event"] == "features"]
    return {
        "seconds": seconds,
        "epochs": epochs,
        "frozen_pass": sum(line["seconds"] for line in passes),
        "frozen_views": sum(sum(line["computed"].values()) for line in passes),
        "test_accuracy": phase["test"]["accuracy"],
        "reused": phase["features"]["reused"],
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
        first = measured(recipe, folder / "first")
        few = {"training__epochs": min(work.epochs, SECOND)}
        rate = measured(recipe, folder / "rate", training__optimizer__lr=3 * LR, **few)
        # its features lie behind the backbone: the first such run makes them, the second is what is measured
        head_only = {"phase__fine-tune__freeze": "backbone", **few}
        made = measured(recipe, folder / "head-first", **head_only)
        head = measured(recipe, folder / "head", head__hidden=2 * HIDDEN, **head_only)
        predictor = tlkit.load(folder / "first")
        files = work.files("test")
        began = time.perf_counter()
        predictor.predict(files)
        predict = time.perf_counter() - began
    second = {"rate": rate, "head_first": made, "head": head}
    return {**first, "process_start": started, "predict": predict, "second": second}


if __name__ == "__main__":
    contend(main)
