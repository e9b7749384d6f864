"""Compares the speed of tlkit with other libraries, and with the limit that its arithmetic sets.

uv run --group bench python -m benchmarks --quick
uv run --group bench python -m benchmarks --data photos/train --json results.json
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.table import Table

from benchmarks.data import lay_out
from benchmarks.work import Work
from tlkit.runtime.processors import reader_threads

#: The experiment whose duration is reported: 2,000 images, 50 epochs.
IMAGES, EPOCHS = 2000, 50
#: Epochs that are measured where not all are: of the quick form, and of the full one.
FEW_EPOCHS, FEW_EPOCHS_FULL = 3, 2
FULL = {"train": 1000, "val": 100, "test": 300}
QUICK = {"train": 128, "val": 13, "test": 64}
PEERS = {
    "plain torch and timm": "plain",
    "fastai": "fastai_learner",
    "Keras on TensorFlow": "keras_fit",
    "Hugging Face Trainer": "hf_trainer",
}
#: Peers that are measured with augmentation too; the Trainer loads images as the plain loop does.
AUGMENTED = ("plain torch and timm", "fastai", "Keras on TensorFlow")
LIBRARIES = ("tlkit", "torch", "timm", "fastai", "keras", "tensorflow-cpu", "transformers")
console = Console(width=120)


def installed_versions() -> dict[str, str]:
    """Returns the versions of the libraries that are installed."""
    versions = {}
    for name in LIBRARIES:
        with suppress(PackageNotFoundError):
            versions[name] = version(name)
    return versions


def measure(module: str, work: Work) -> dict[str, Any]:
    """Runs a contender in a process of its own.

    Returns:
        What it measured, with the process's duration and peak memory (workers not counted).
    """
    console.print(f"{module} {work.precision}{', augmented' if work.augment else ''} …", style="dim")
    began = time.perf_counter()
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", f"benchmarks.{module}", work.arguments()], stdout=output, stderr=errors
        )
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        wall = time.perf_counter() - began
        output.seek(0)
        errors.seek(0)
        lines = output.read().decode().splitlines()
        if process.returncode:
            raise SystemExit(f"{module} failed:\n{errors.read().decode()[-3000:]}")
    measurement: dict[str, Any] = json.loads(lines[-1])
    return {**measurement, "wall": wall, "peak_memory": used.ru_maxrss * 1024}


def images_per_second(measurement: dict[str, Any], images: int) -> float:
    """Returns the training images per second in the second epoch or the third, whichever is faster."""
    return images / float(min(measurement["epochs"][1:FEW_EPOCHS]))


def experiment_seconds(measurement: dict[str, Any], images: int) -> float:
    """Returns the duration of the complete experiment: measured if it was run, else extrapolated.

    The extrapolation adds what the process needed besides its epochs and predictions, and the epochs of as
    many images as the experiment has; for tlkit also its frozen pass over them.
    """
    epochs = measurement["epochs"]
    complete = len(epochs) == EPOCHS and images == IMAGES
    training = sum(epochs) if complete else IMAGES * EPOCHS / images_per_second(measurement, images)
    if "besides" in measurement:  # a peer
        return float(measurement["wall"] - measurement["besides"] - sum(epochs) + training)
    frozen_pass = measurement["frozen_pass"]
    start = measurement["process_start"] + measurement["seconds"] - sum(epochs) - frozen_pass
    return float(start + frozen_pass * IMAGES / images + training)


def main(
    data: Annotated[
        Path | None, typer.Option(help="Photos: a folder per class, or Kaggle's cat.1.jpg, dog.1.jpg.")
    ] = None,
    quick: Annotated[bool, typer.Option(help="Fewer images and epochs; the same work per image.")] = False,
    json_: Annotated[Path | None, typer.Option("--json", help="Write everything measured here.")] = None,
) -> None:
    """Compares tlkit with its peers, in one sitting on this machine."""
    counts = QUICK if quick else FULL
    images = 2 * counts["train"]
    card = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    if card:
        console.print("Keras is left out: the group bench has TensorFlow for CPUs only", style="dim")
        del PEERS["Keras on TensorFlow"]
    report: dict[str, Any] = {
        "date": date.today().isoformat(),
        "machine": f"{platform.machine()}, {reader_threads()} processors{card}",
        "versions": installed_versions(),
        "images": counts,
        "data": "photos" if data else "the drawn world",
    }

    def add(title: str, module: str, work: Work) -> None:
        report[title] = measure(module, work)
        if json_:  # every time, since the full form takes more than an hour
            json_.write_text(json.dumps(report, indent=1))

    with tempfile.TemporaryDirectory() as folder:
        lay_out(Path(folder), counts, data)
        own_epochs = FEW_EPOCHS if quick else EPOCHS
        for augment in (False, True):
            kind = "augmented" if augment else "plain"
            for precision in ("bfloat16", "float32"):
                if augment and precision == "float32":
                    continue
                work = Work(folder, augment=augment, precision=precision, epochs=own_epochs)
                add(f"tlkit {precision} {kind}", "contenders.tlkit_run", work)
                if not augment:
                    add(f"limits {precision}", "limits", work)
            for name in PEERS if not augment else [name for name in PEERS if name in AUGMENTED]:
                epochs = FEW_EPOCHS if quick else FEW_EPOCHS_FULL
                work = Work(folder, epochs=epochs, augment=augment, workers=reader_threads())
                add(f"{name} {kind}", f"contenders.{PEERS[name]}", work)
    for kind, precisions in (("plain", ("bfloat16", "float32")), ("augmented", ("bfloat16",))):
        console.print(comparison_table(report, kind, precisions, images, 2 * counts["test"]))
    for precision in ("bfloat16", "float32"):
        print_limits(report, precision, images)


def comparison_table(
    report: dict[str, Any], kind: str, precisions: Sequence[str], images: int, test_images: int
) -> Table:
    """Returns the table of tlkit and its peers, with ratios; `kind` is "plain" or "augmented"."""
    title = "no augmentation" if kind == "plain" else "augmented: tlkit caches eight views, peers draw anew"
    table = Table(title=f"VGG16, 150 px, last block and head, {title}", title_justify="left")
    for column in ("", "images/s", "50 epochs, s", "predicted/s", "memory, GB", "test accuracy"):
        table.add_column(column, justify="left" if not column else "right")
    for precision in precisions:
        table.add_column(f"tlkit {precision} is", justify="right")
    own = {f"tlkit {precision}": report[f"tlkit {precision} {kind}"] for precision in precisions}
    peers = {name: report[f"{name} {kind}"] for name in PEERS if f"{name} {kind}" in report}
    for name, measurement in {**own, **peers}.items():
        seconds = experiment_seconds(measurement, images)
        ratios = [f"{seconds / experiment_seconds(tlkit, images):.1f} x" for tlkit in own.values()]
        table.add_row(
            name,
            f"{images_per_second(measurement, images):.1f}",
            f"{seconds:,.0f}",
            f"{test_images / measurement['predict']:.1f}",
            f"{measurement['peak_memory'] / 1e9:.1f}",
            f"{measurement['test_accuracy']:.3f}",
            *(ratios if name in peers else [""] * len(own)),
        )
    return table


def print_limits(report: dict[str, Any], precision: str, images: int) -> None:
    """Prints how close tlkit comes to the limit of its arithmetic, and the duration of second experiments."""
    limits, measurement = report[f"limits {precision}"], report[f"tlkit {precision} plain"]
    frozen_pass = measurement["frozen_views"] / measurement["frozen_pass"]
    console.print(precision)
    for label, achieved, limit in (
        ("frozen pass, decoding included", frozen_pass, limits["forward"]),
        ("training epoch, validation included", images_per_second(measurement, images), limits["step"]),
    ):
        share = f"{achieved / limit:.0%} of the pure arithmetic's {limit:.1f}"
        console.print(f"  {label}: {achieved:.1f} images/s, {share}")
    console.print(f"  matrix products: {limits['matrix_rate']:.0f} GFLOP/s")
    plain = experiment_seconds(report["plain torch and timm plain"], images)
    for label, name in (("another learning rate", "rate"), ("another head alone", "head")):
        second = {**measurement["second"][name], "process_start": measurement["process_start"]}
        seconds = experiment_seconds(second, images)
        console.print(
            f"  {label}, 50 epochs, everything included: {seconds:.0f} s, "
            f"{plain / seconds:.0f} x the plain loop's speed"
        )


if __name__ == "__main__":
    typer.run(main)
