"""Measures how time and memory grow with the number of images: drawn images, a small network, empty caches.

The first plan lists and hashes the images; the run after it finds them unchanged.

uv run --group bench python -m benchmarks.growth 1000 10000 100000
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich import box
from rich.console import Console
from rich.table import Table

import tlkit
from tlkit.data.image_index import RACY_NS
from tlkit.experiment.log import FeaturesComputed, read_events
from tlkit.feature_store.store import FeatureStore
from tlkit.runtime.process import keep_freed_memory

RECIPE = """
name = "growth"
data = {{ source = {{ name = "drawn", setting = "street", per_class = {count} }}, root = "{root}" }}
backbone = {{ name = "vgg16-quarter", features = "pooled" }}
preprocess = {{ size = 64 }}
head = "linear"
training = {{ epochs = 5, batch_size = 128 }}

[[phase]]
name = "bottleneck"
"""
#: Number of rows, and of values per row, of the store that is only opened.
ROWS, WIDTH = 1_000_000, 16


def grow(images: int, root: Path) -> dict[str, Any]:
    """Measures one run on that many images, which are drawn in `root` if they do not exist yet."""
    keep_freed_memory()
    with tempfile.TemporaryDirectory() as folder:
        recipe = Path(folder) / "recipe.toml"
        recipe.write_text(RECIPE.format(count=images // 2, root=root))
        os.environ["TLKIT_CACHE"] = f"{folder}/drawn"
        tlkit.run(recipe, out=Path(folder) / "plan", plan_only=True)
        time.sleep(RACY_NS / 1e9)  # files that were written just now are not remembered
        os.environ["TLKIT_CACHE"] = f"{folder}/cache"
        began = time.perf_counter()
        tlkit.run(recipe, out=Path(folder) / "plan", plan_only=True)
        first_plan = time.perf_counter() - began
        began = time.perf_counter()
        run = tlkit.run(recipe, out=Path(folder) / "out")
        seconds = time.perf_counter() - began
        events = read_events(run.folder / "log.jsonl")
        (phase,) = run.results.phases
        frozen_pass = sum(event.seconds for event in events if isinstance(event, FeaturesComputed))
    training = phase.seconds.training
    return {
        "images": images,
        "first_plan": first_plan,
        "frozen_pass": frozen_pass,
        "training": training,
        "rest": seconds - frozen_pass - training,
        "peak_memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }


def open_store() -> dict[str, float]:
    """Measures how long it takes to open a column of a million features, find them all, and take a batch."""
    with tempfile.TemporaryDirectory() as folder:
        store = FeatureStore(Path(folder))
        writer = store.writer("ab" * 32)
        names = [f"{number:064x}" for number in range(ROWS)]
        for start in range(0, ROWS, 10_000):
            writer.add(names[start : start + 10_000], torch.randn(10_000, 1, WIDTH))
        writer.flush()
        began = time.perf_counter()
        rows = store.column("ab" * 32).rows(names)
        opened = time.perf_counter() - began
        began = time.perf_counter()
        rows.take(np.random.default_rng(0).integers(ROWS, size=32))
        return {"open": opened, "batch": time.perf_counter() - began}


def main(counts: list[int]) -> None:
    console = Console(width=120)
    table = Table(title="With empty caches, images drawn already", title_justify="left", box=box.SIMPLE_HEAD)
    for column in (
        "images",
        "first plan, s",
        "frozen pass, s",
        "per 1,000",
        "training, s",
        "per 1,000",
        "rest, s",
        "memory, GB",
    ):
        table.add_column(column, justify="right")
    with tempfile.TemporaryDirectory() as root:
        for count in counts:
            command = [sys.executable, "-m", "benchmarks.growth", "--one", str(count), root]
            process = subprocess.run(command, check=True, capture_output=True)
            measurement = json.loads(process.stdout.splitlines()[-1])
            table.add_row(
                f"{count:,}",
                f"{measurement['first_plan']:.1f}",
                f"{measurement['frozen_pass']:.1f}",
                f"{1000 * measurement['frozen_pass'] / count:.2f}",
                f"{measurement['training']:.1f}",
                f"{1000 * measurement['training'] / count:.3f}",
                f"{measurement['rest']:.1f}",
                f"{measurement['peak_memory'] / 1e9:.2f}",
            )
    console.print(table)
    store = open_store()
    console.print(
        f"A store of {ROWS:,} features of {WIDTH} values: opened, with every row found, in "
        f"{store['open']:.2f} s; a batch of 32 in {1000 * store['batch']:.1f} ms"
    )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        print(json.dumps(grow(int(sys.argv[2]), Path(sys.argv[3]))))  # noqa: T201
    else:
        main([int(count) for count in sys.argv[1:]] or [1000, 10_000, 100_000])
