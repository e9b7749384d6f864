"""Measures what many images cost besides the network: bitmaps of 8 pixels, a backbone of 16 numbers.

python -m benchmarks.scale rows 10000 100000 1000000
python -m benchmarks.scale classes 10 1000 2000
python -m benchmarks.scale shards 100000 4 6     # images, processes, kills

With over 100,000 images, the features are drawn instead of computed.
"""

from __future__ import annotations

import functools
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from rich import box
from rich.console import Console
from rich.table import Table

import tlkit
from tlkit.data.image_index import RACY_NS
from tlkit.experiment.runner import prepare_experiment
from tlkit.feature_store.extraction import column_key
from tlkit.feature_store.shards import open_shard
from tlkit.feature_store.store import FeatureStore
from tlkit.plugins.loader import BUILTIN, load_registry
from tlkit.recipe.recipe import make_recipe
from tlkit.runtime.devices import choose_device
from tlkit.runtime.process import keep_freed_memory

#: Classes of the images of `rows` and `shards`; images of `classes`.
CLASSES, IMAGES = 10, 50_000
#: More features than this are drawn.
COMPUTED = 100_000
SIDE = 8
HEADER = b"BM" + (54 + 3 * SIDE * SIDE).to_bytes(4, "little") + bytes(4) + (54).to_bytes(4, "little")
HEADER += (40).to_bytes(4, "little") + 2 * SIDE.to_bytes(4, "little") + b"\1\0\x18\0" + bytes(24)


def lay_out(folder: Path, images: int, classes: int) -> None:
    """Writes bitmaps of random pixels, brighter with the number of their class."""
    generator = np.random.default_rng(0)
    for label in range(classes):
        target = folder / f"class {label:04}"
        target.mkdir(parents=True)
        for number in range(label, images, classes):
            pixels = generator.integers(0, 128, 3 * SIDE * SIDE, dtype=np.uint8)
            (target / f"{number:07}.bmp").write_bytes(HEADER + (pixels + 127 * label // classes).tobytes())


def recipe(data: dict[str, Any], **training: Any) -> tlkit.Recipe:
    """Returns a recipe of a linear head on these images."""
    return make_recipe(
        {
            "name": "scale",
            "data": data,
            "backbone": {"name": "tiny"},
            "training": {"epochs": 3, "batch_size": 4096, **training},
            "phase": [{"name": "probe"}],
        }
    )


class PassClock(tlkit.Observer):
    """Measures the processor time of the frozen pass and of training, in seconds."""

    def __init__(self) -> None:
        self.seconds = {"frozen pass": 0.0, "training": 0.0}

    @contextmanager
    def progress(self, task: str, total: int, unit: str, done: int = 0) -> Iterator[Callable[[int], object]]:
        """Adds a task's processor time."""
        began = time.process_time()
        yield lambda _: None
        name = "training" if task.startswith("training") else task
        if name in self.seconds:
            self.seconds[name] += time.process_time() - began


def draw_features(of: tlkit.Recipe, registry: tlkit.Registry) -> None:
    """Writes the features that a run reads, drawn around a mean for each class."""
    with FeatureStore() as store:
        experiment = prepare_experiment(of, of.phases, registry, choose_device(None), tlkit.Observer())
        means = np.random.default_rng(1).normal(size=(len(experiment.dataset.classes), 16))
        generator = np.random.default_rng(2)
        done: set[tuple[str, str]] = set()
        for prepared in experiment.phases:
            for compute in dict.fromkeys((prepared.compute, prepared.evaluation)):
                for request in prepared.requests(experiment.dataset, compute):
                    key = column_key(request.network.boundaries[0], request.view, compute)
                    images = [image for image in request.images if (key, image.sha256) not in done]
                    done |= {(key, image.sha256) for image in images}
                    labels = np.array([image.sample.label for image in images], np.int64)
                    features = means[labels] + generator.normal(size=(len(labels), 16))
                    writer = store.writer(key)
                    writer.add(
                        [image.sha256 for image in images], torch.tensor(features[:, None]).to(compute.dtype)
                    )
                    writer.flush()


class Step(NamedTuple):
    """What is measured of a step, which has a process of its own.

    Attributes:
        seconds: processor time by name, without the process's start: of the step, and of parts of it.
        memory: the most that the process held, in bytes.
    """

    seconds: dict[str, float]
    memory: int


def take_step(name: str, folder: Path) -> Step:
    """Takes a step on the images in a folder, and measures it.

    Args:
        name: the step's.
        folder: holds the images, and what earlier steps have made.
    """
    keep_freed_memory()
    registry = load_registry((*BUILTIN, "benchmarks.tiny"))
    root, file = str(folder / "images"), folder / "images.parquet"
    listed = recipe({"source": "folder", "root": root})
    of_manifest = recipe({"source": {"name": "parquet", "file": str(file)}, "root": root})
    plan = functools.partial(tlkit.run, out=folder / "none", registry=registry, plan_only=True)
    passes = PassClock()
    run = functools.partial(tlkit.run, of_manifest, registry=registry, observer=passes)
    steps: dict[str, Callable[[], object]] = {
        "first plan": lambda: plan(listed),
        "plan": lambda: plan(listed),
        "manifest": lambda: tlkit.manifest(listed, out=file, registry=registry),
        "plan of manifest": lambda: plan(of_manifest),
        "draw": lambda: draw_features(of_manifest, registry),
        "run": lambda: run(out=folder / "run"),
        "second run": lambda: run(out=folder / "second run"),
        "report": lambda: tlkit.report(folder / "run"),
    }
    began = time.process_time()
    steps[name]()
    seconds = time.process_time() - began
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return Step({name: seconds, **passes.seconds, "rest": seconds - sum(passes.seconds.values())}, memory)


def measure(images: int, classes: int) -> dict[str, Any]:
    """Measures a run on a folder, from nothing and again, and on a manifest of it."""
    names = ["first plan", "plan", "manifest", "plan of manifest", "run", "second run", "report"]
    if images > COMPUTED:
        names.insert(4, "draw")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        lay_out(folder / "images", images, classes)
        time.sleep(RACY_NS / 1e9)  # files that were written just now are not remembered
        environment = {**os.environ, "TLKIT_CACHE": str(folder / "cache")}
        steps: dict[str, Step] = {}
        for name in names:
            command = [sys.executable, "-m", "benchmarks.scale", "--step", name, temporary]
            process = subprocess.run(command, check=True, stdout=subprocess.PIPE, env=environment)
            steps[name] = Step(*json.loads(process.stdout.splitlines()[-1]))
        files = {
            name: (folder / "run" / name).stat().st_size
            for name in ("results.json", "splits.csv", "phases/probe/predictions.csv", "report.html")
        }
        return {
            "images": images,
            "classes": classes,
            **{name: step.seconds[name] for name, step in steps.items()},
            **{name: steps["run"].seconds[name] for name in ("frozen pass", "training", "rest")},
            **files,
            "memory": steps["run"].memory,
            "memory of report": steps["report"].memory,
            "manifest.parquet": (folder / "images.parquet").stat().st_size,
            "index": sum(path.stat().st_size for path in (folder / "cache" / "hashes").glob("*.sqlite")),
        }


def compute_shard(folder: str, shard: str) -> dict[str, Any]:
    """Computes a part of the features, and measures that alone."""
    registry, clock = load_registry((*BUILTIN, "benchmarks.tiny")), PassClock()
    listed = recipe({"source": "folder", "root": folder})
    done = tlkit.compute_features(listed, shard=shard, registry=registry, observer=clock)
    return {"computed": done.computed, "processor": clock.seconds["frozen pass"]}


def stored(cache: Path) -> dict[tuple[str, bytes], bytes]:
    """Returns the bits of each feature in a store, by column and image; none may be there twice."""
    features: dict[tuple[str, bytes], bytes] = {}
    for path in (cache / "features").glob("??/*/*.safetensors"):
        shard = open_shard(path, path.parent.name)
        assert shard is not None
        for image, row in zip(shard.images, shard.features, strict=True):
            key = path.parent.name, image.tobytes()
            assert key not in features, "computed twice"
            features[key] = row.reshape(-1).view(torch.uint8).numpy().tobytes()
    return features


def start(folder: Path, store: str, shard: str) -> subprocess.Popen[str]:
    """Starts a process that computes a part of the features of the images in a folder."""
    environment = {**os.environ, "TLKIT_CACHE": str(folder / store), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "benchmarks.scale", "--shard", str(folder / "images"), shard]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)


def compute(folder: Path, store: str, processes: int) -> None:
    """Computes the features in some processes, and prints what that took."""
    began = time.perf_counter()
    parts = [start(folder, store, f"{part}/{processes}") for part in range(1, processes + 1)]
    outputs = [json.loads(part.communicate()[0].splitlines()[-1]) for part in parts]
    wall = time.perf_counter() - began
    computed, processor = (sum(output[name] for output in outputs) for name in ("computed", "processor"))
    cost = f", {1000 * processor / computed:.3f} ms of processor time each" if computed else ""
    print(f"{store}, {processes} processes: {computed:,} image views in {wall:.1f} s{cost}")  # noqa: T201


def shards(images: int, processes: int, kills: int) -> None:
    """Compares the frozen pass of one process with that of several at once, and of some that are killed."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        lay_out(folder / "images", images, CLASSES)
        time.sleep(RACY_NS / 1e9)
        compute(folder, "alone", 1)
        compute(folder, "together", processes)
        chance = random.Random(0)
        for number in range(kills):
            before = len(list((folder / "killed").rglob("*.safetensors")))
            part = start(folder, "killed", f"{number % processes + 1}/{processes}")
            while part.poll() is None and len(list((folder / "killed").rglob("*.safetensors"))) == before:
                time.sleep(0.1)
            time.sleep(chance.uniform(0, 6))
            part.kill()
            part.wait()
            print(f"killed, with {len(stored(folder / 'killed')):,} features so far")  # noqa: T201
        compute(folder, "killed", processes)
        alone = stored(folder / "alone")
        for name in ("together", "killed"):
            equal = alone == stored(folder / name)
            print(f"{name}: {len(alone):,} features, equal bit for bit: {equal}")  # noqa: T201


def main(cases: list[tuple[int, int]]) -> None:
    seconds = [
        "first plan",
        "plan",
        "manifest",
        "plan of manifest",
        "frozen pass",
        "training",
        "rest",
        "second run",
        "report",
    ]
    sizes = [
        "memory",
        "memory of report",
        "index",
        "manifest.parquet",
        "splits.csv",
        "results.json",
        "report.html",
    ]
    sizes.insert(6, "phases/probe/predictions.csv")
    table = Table(title="Seconds of processor time, and MB", title_justify="left", box=box.SIMPLE_HEAD)
    measurements = []
    for images, classes in cases:
        command = [sys.executable, "-m", "benchmarks.scale", "--one", str(images), str(classes)]
        process = subprocess.run(command, check=True, stdout=subprocess.PIPE)
        measurements.append(json.loads(process.stdout.splitlines()[-1]))
    table.add_column("")
    for one in measurements:
        table.add_column(f"{one['images']:,} images, {one['classes']:,} classes", justify="right")
    for name in seconds:
        table.add_row(f"{name}, s", *(f"{one[name]:.1f}" for one in measurements))
    for name in sizes:
        table.add_row(f"{name}, MB", *(f"{one[name] / 1e6:,.2f}" for one in measurements))
    Console(width=140).print(table)


if __name__ == "__main__":
    mode, *rest = sys.argv[1:]
    if mode == "--one":
        print(json.dumps(measure(int(rest[0]), int(rest[1]))))  # noqa: T201
    elif mode == "--step":
        print(json.dumps(take_step(rest[0], Path(rest[1]))))  # noqa: T201
    elif mode == "--shard":
        print(json.dumps(compute_shard(*rest)))  # noqa: T201
    elif mode == "shards":
        shards(*map(int, rest))
    elif mode == "classes":
        main([(IMAGES, int(count)) for count in rest])
    else:
        main([(int(count), CLASSES) for count in rest])
