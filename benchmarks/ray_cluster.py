"""Compares the frozen pass on a Ray cluster of two nodes with that of processes, and kills actors.

python -m benchmarks.ray_cluster 100000 4     # images, and processes; each node has one actor

The nodes are on this computer. Rates are those per second of processor time, since others may be at work on
it: what it would compute with that many cores of its own.
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
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, NamedTuple

import psutil

import tlkit
from benchmarks.scale import CLASSES, PassClock, lay_out, stored
from tlkit.data.image_index import RACY_NS
from tlkit.recipe.recipe import make_recipe

#: A process, and the file of its standard output.
Started = tuple[subprocess.Popen[bytes], IO[str]]
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
            "preprocess": {"size": 32},
            "training": {"precision": "float32"},
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


class Sample(NamedTuple):
    """What is done after some time.

    Attributes:
        done: number of image views.
        working: processor time of this process and of the actors, in seconds.
        others: processor time of Ray's own processes.
        wall: seconds.
    """

    done: int
    working: float
    others: float
    wall: float


class RayClock(tlkit.Observer):
    """Measures the processor time of a cluster and of this process."""

    def __init__(self) -> None:
        self.samples: list[Sample] = []
        self.lost = 0

    @contextmanager
    def progress(self, task: str, total: int, unit: str, done: int = 0) -> Iterator[Callable[[int], object]]:
        """Samples when the actors have started, and in the end."""
        blocks = 0

        def tick(count: int) -> None:
            nonlocal blocks, done
            blocks, done = blocks + 1, done + count
            # actors start at the same time, for seconds: each has then computed a block
            if blocks == NODES or done == total:
                self.samples.append(sample(done))

        yield tick if task == "frozen pass" else lambda _: None

    def note(self, text: str) -> None:
        """Counts lost actors."""
        self.lost += "an actor was lost" in text


def sample(done: int) -> Sample:
    """Measures the times of this process and of all that Ray has started."""
    own, working, others = psutil.Process(), 0.0, 0.0
    for process in (own, *own.children(recursive=True)):
        try:
            times = process.cpu_times()
            works = process == own or process.name().startswith("ray::Worker")
        except psutil.Error:
            continue
        working += works * (times.user + times.system)
        others += (not works) * (times.user + times.system)
    return Sample(done, working, others, time.perf_counter())


def kill_actors(stop: threading.Event) -> None:
    """Kills an actor that is computing every few seconds."""
    chance = random.Random(0)
    while not stop.wait(chance.uniform(*BETWEEN_KILLS)):
        with suppress(psutil.Error):  # one has just ended
            processes = psutil.Process().children(recursive=True)
            actors = [process for process in processes if process.name() == "ray::Worker.compute"]
            if actors:
                chance.choice(actors).kill()


def compute_ray(folder: str, kills: str) -> dict[str, float]:
    """Computes the features on a cluster; with `kills`, actors are killed all the while."""
    import ray
    from ray.cluster_utils import Cluster

    node = {"num_cpus": 1, "object_store_memory": 80 * 2**20}
    node |= {"include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=node)
    for _ in range(NODES - 1):
        cluster.add_node(**node)
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
    first, last = clock.samples[0], clock.samples[-1]
    return {
        "computed": done.computed,
        "processor": (last.working - first.working) * done.computed / (last.done - first.done),
        "others": (last.others - first.others) / (last.wall - first.wall),
        "wall": wall,
        "lost": clock.lost,
    }


def start(folder: Path, store: str, *arguments: str) -> Started:
    """Starts this module in a process with one thread and a store of its own."""
    environment = {**os.environ, "TLKIT_CACHE": str(folder / store), "OMP_NUM_THREADS": "1"}
    environment["RAY_ENABLE_UV_RUN_RUNTIME_ENV"] = (
        "0"  # as tlkit-ray has it, which is imported after Ray here
    )
    command = [sys.executable, "-m", "benchmarks.ray_cluster", *arguments]
    # not a pipe: what Ray starts has it, too, and may end later
    output = tempfile.TemporaryFile("w+")
    return subprocess.Popen(command, env=environment, stdout=output), output


def finish(name: str, processes: list[Started]) -> None:
    """Waits for processes, and prints what they have done together."""
    parts = []
    for process, output in processes:
        process.wait()
        output.seek(0)
        parts.append(json.loads(output.read().splitlines()[-1]))
    computed, processor = (sum(part[key] for part in parts) for key in ("computed", "processor"))
    wall = max(part["wall"] for part in parts)
    text = f"{name}: {computed:,} image views in {wall:.0f} s"
    if parts[0].get("lost"):
        text += f", {parts[0]['lost']} actors lost"
    else:  # the time of those that were killed is not known
        text += f", {computed / processor:.0f} a second of processor time"
    if "others" in parts[0]:
        text += f", and {100 * parts[0]['others']:.0f}% of a processor for Ray itself"
    print(text, flush=True)  # noqa: T201


def main(images: int, count: int) -> None:
    """Computes the same features in one process, in several, on a cluster, and with kills."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        lay_out(folder / "images", images, CLASSES)
        time.sleep(RACY_NS / 1e9)
        images_folder = str(folder / "images")
        finish("alone", [start(folder, "alone", "--shard", images_folder, "1/1")])
        alone = stored(folder / "alone")

        def compare(name: str) -> None:
            equal = alone == stored(folder / name)
            print(f"{name}: {len(alone):,} features, equal bit for bit: {equal}", flush=True)  # noqa: T201

        shards = [f"{number}/{count}" for number in range(1, count + 1)]
        several = [start(folder, "shards", "--shard", images_folder, shard) for shard in shards]
        finish(f"{count} processes", several)
        compare("shards")
        cluster = start(folder, "ray", "--ray", images_folder, "")
        finish(f"{NODES} actors on {NODES} nodes", [cluster])
        compare("ray")
        killed = start(folder, "killed", "--ray", images_folder, "kills")
        finish("killed", [killed])
        compare("killed")


if __name__ == "__main__":
    mode, *rest = sys.argv[1:]
    if mode == "--shard":
        print(json.dumps(compute_shard(*rest)))  # noqa: T201
    elif mode == "--ray":
        print(json.dumps(compute_ray(*rest)))  # noqa: T201
    else:
        main(int(mode), int(rest[0]))
