"""Compares the frozen pass on a Ray cluster of two nodes with that of processes, and kills actors.

python -m benchmarks.ray_cluster 20000 2     # images, and processes or actors

The nodes are on this computer, on its loopback address. Rates are those per second of processor time, since
others may be at work on the machine: what it would compute with that many cores of its own.
"""

from __future__ import annotations

import json
import logging
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

import tlkit
from benchmarks.scale import CLASSES, PassClock, lay_out, stored
from tlkit.data.image_index import RACY_NS
from tlkit.recipe.recipe import make_recipe

NODES = 2
#: Seconds between two kills, drawn between these.
BETWEEN_KILLS = (2.0, 8.0)


def recipe(folder: str, engine: dict[str, Any] | None = None) -> tlkit.Recipe:
    """Returns a recipe of a small real network on the images of a folder."""
    return make_recipe(
        {
            "name": "ray",
            "data": {"source": "folder", "root": folder},
            "backbone": {"name": "mobilenetv3_small_050", "weights": "none"},
            "preprocess": {"size": 64},
            "compute": {"engine": engine} if engine else {},
            "phase": [{"name": "probe"}],
        }
    )


def compute_shard(folder: str, shard: str) -> dict[str, float]:
    """Computes a part of the features; returns what that took without the start."""
    clock, began = PassClock(), time.perf_counter()
    done = tlkit.compute_features(recipe(folder), shard=shard, observer=clock)
    return {
        "computed": done.computed,
        "processor": clock.seconds["frozen pass"],
        "wall": time.perf_counter() - began,
    }


class RayClock(tlkit.Observer):
    """Measures the processor time of a cluster and of this process, block by block."""

    def __init__(self) -> None:
        self.samples: list[tuple[int, float]] = []
        self.lost = 0

    @contextmanager
    def progress(self, task: str, total: int, unit: str, done: int = 0) -> Iterator[Callable[[int], object]]:
        """Samples after each block."""

        def tick(count: int) -> None:
            done = self.samples[-1][0] if self.samples else 0
            self.samples.append((done + count, processor_time()))

        yield tick if task == "frozen pass" else lambda _: None

    def note(self, text: str) -> None:
        """Counts lost actors."""
        self.lost += "an actor was lost" in text


def processor_time() -> float:
    """Returns the processor time of this process and of all that Ray has started, in seconds."""
    seconds = 0.0
    for process in (psutil.Process(), *psutil.Process().children(recursive=True)):
        try:
            times = process.cpu_times()
        except psutil.Error:
            continue
        seconds += times.user + times.system
    return seconds


def kill_actors(stop: threading.Event) -> None:
    """Kills an actor every few seconds."""
    chance = random.Random(0)
    while not stop.wait(chance.uniform(*BETWEEN_KILLS)):
        actors = [
            process
            for process in psutil.Process().children(recursive=True)
            if process.name().startswith("ray::Worker")
        ]
        if actors:
            chance.choice(actors).kill()


def compute_ray(folder: str, actors: str, kills: str) -> dict[str, float]:
    """Computes the features on a cluster; with `kills`, actors are killed all the while."""
    import ray
    from ray.cluster_utils import Cluster

    each = {"num_cpus": int(actors) // NODES, "object_store_memory": 80 * 2**20}
    each |= {"node_ip_address": "127.0.0.1", "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=each)
    for _ in range(NODES - 1):
        cluster.add_node(**each)
    ray.init(address=cluster.address, log_to_driver=False, logging_level=logging.ERROR)
    stop, clock = threading.Event(), RayClock()
    killer = threading.Thread(target=kill_actors, args=(stop,), daemon=True)
    if kills == "kills":
        killer.start()
    began = time.perf_counter()
    done = tlkit.compute_features(recipe(folder, {"name": "ray"}), observer=clock)
    wall = time.perf_counter() - began
    stop.set()
    ray.shutdown()
    cluster.shutdown()
    # from when each actor has computed a block: they start at the same time, and that takes seconds
    (first, before), (last, after) = clock.samples[int(actors) - 1], clock.samples[-1]
    return {
        "computed": done.computed,
        "processor": (after - before) * done.computed / (last - first),
        "wall": wall,
        "lost": clock.lost,
    }


def start(folder: Path, store: str, *arguments: str) -> subprocess.Popen[str]:
    """Starts this module in a process with one thread and a store of its own."""
    environment = {**os.environ, "TLKIT_CACHE": str(folder / store), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "benchmarks.ray_cluster", *arguments]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)


def finish(name: str, processes: list[subprocess.Popen[str]]) -> None:
    """Waits for processes, and prints what they have done together."""
    parts = [json.loads(process.communicate()[0].splitlines()[-1]) for process in processes]
    computed, processor = (sum(part[key] for part in parts) for key in ("computed", "processor"))
    wall = max(part["wall"] for part in parts)
    lost = f", {parts[0]['lost']} actors lost" if "lost" in parts[0] else ""
    rate = f"{computed / processor:.0f} a second of processor time"
    print(f"{name}: {computed:,} image views in {wall:.0f} s, {rate}{lost}", flush=True)  # noqa: T201


def main(images: int, workers: int) -> None:
    """Computes the same features in one process, in several, on a cluster, and with kills."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        lay_out(folder / "images", images, CLASSES)
        time.sleep(RACY_NS / 1e9)
        images_folder = str(folder / "images")
        finish("alone", [start(folder, "alone", "--shard", images_folder, "1/1")])
        shards = [f"{number}/{workers}" for number in range(1, workers + 1)]
        for attempt in ("first", "second"):
            several = [
                start(folder, f"shards {attempt}", "--shard", images_folder, shard) for shard in shards
            ]
            finish(f"{workers} processes, {attempt}", several)
            cluster = start(folder, f"ray {attempt}", "--ray", images_folder, str(workers), "")
            finish(f"{workers} actors on {NODES} nodes, {attempt}", [cluster])
        killed = start(folder, "killed", "--ray", images_folder, str(workers), "kills")
        finish("killed", [killed])
        alone = stored(folder / "alone")
        for name in ("shards first", "ray first", "ray second", "killed"):
            equal = alone == stored(folder / name)
            print(f"{name}: {len(alone):,} features, equal bit for bit: {equal}")  # noqa: T201


if __name__ == "__main__":
    mode, *rest = sys.argv[1:]
    if mode == "--shard":
        print(json.dumps(compute_shard(*rest)))  # noqa: T201
    elif mode == "--ray":
        print(json.dumps(compute_ray(*rest)))  # noqa: T201
    else:
        main(int(mode), int(rest[0]))
