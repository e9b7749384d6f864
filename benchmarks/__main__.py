"""Measures tlkit beside what people use today, and against what the arithmetic allows.

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
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.table import Table

from benchmarks.data import lay_out
from benchmarks.work import Work
from tlkit.data.loader import reader_threads

#: The experiment whose time is stated: 2,000 images, 50 epochs.
IMAGES, EPOCHS = 2000, 50
#: Epochs that are measured where not all are: of few images, and of all.
FEW, FEW_LONG = 3, 2
FULL = {"train": 1000, "val": 100, "test": 300}
QUICK = {"train": 128, "val": 13, "test": 64}
PEERS = {
    "plain torch and timm": "plain",
    "fastai": "fastai_learner",
    "Keras on TensorFlow": "keras_fit",
    "Hugging Face Trainer": "hf_trainer",
}
#: Those that are measured with augmentation too; the Trainer's loading is the plain loop's.
AUGMENTED = ("plain torch and timm", "fastai", "Keras on TensorFlow")
LIBRARIES = ("tlkit", "torch", "timm", "fastai", "keras", "tensorflow-cpu", "transformers")
console = Console(width=120)


def measured(module: str, work: Work) -> dict[str, Any]:
    """What one process measured, with its whole time and its largest memory (workers not counted)."""
    console.print(f"{module} {work.precision}{', augmented' if work.augment else ''} …", style="dim")
    began = time.perf_counter()
    with tempfile.TemporaryFile() as said, tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", f"benchmarks.{module}", work.arguments()], stdout=said, stderr=errors
        )
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        wall = time.perf_counter() - began
        said.seek(0)
        errors.seek(0)
        lines = said.read().decode().splitlines()
        if process.returncode:
            raise SystemExit(f"{module} failed:\n{errors.read().decode()[-3000:]}")
    found: dict[str, Any] = json.loads(lines[-1])
    return {**found, "wall": wall, "peak_memory": used.ru_maxrss * 1024}


def rate(found: dict[str, Any], images: int) -> float:
    """Training images a second, in the second epoch or the third, whichever is faster."""
    return images / float(min(found["epochs"][1:FEW]))


def whole(found: dict[str, Any], images: int) -> float:
    """Seconds of the whole experiment: measured where it was done, else computed from what was measured.

    Computed, it is what the process needed besides its epochs and predictions, and epochs of as many
    images as the experiment has; for tlkit also its frozen pass over them.
    """
    complete = len(found["epochs"]) == EPOCHS and images == IMAGES
    epochs = sum(found["epochs"]) if complete else IMAGES * EPOCHS / rate(found, images)
    if "besides" in found:  # a peer
        return float(found["wall"] - found["besides"] - sum(found["epochs"]) + epochs)
    once = found["frozen_pass"]
    start = found["process_start"] + found["seconds"] - sum(found["epochs"]) - once
    return float(start + once * IMAGES / images + epochs)


def main(
    data: Annotated[
        Path | None, typer.Option(help="Photos: a folder per class, or Kaggle's cat.1.jpg, dog.1.jpg.")
    ] = None,
    quick: Annotated[bool, typer.Option(help="Fewer images and epochs; the same work per image.")] = False,
    json_: Annotated[Path | None, typer.Option("--json", help="Write everything measured here.")] = None,
) -> None:
    """tlkit beside its peers, in one run on this machine."""
    counts = QUICK if quick else FULL
    images = 2 * counts["train"]
    card = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    if card:
        console.print("Keras is left out: the group bench has TensorFlow for processors only", style="dim")
        del PEERS["Keras on TensorFlow"]
    everything: dict[str, Any] = {
        "date": date.today().isoformat(),
        "machine": f"{platform.machine()}, {reader_threads()} processors{card}",
        "versions": {name: version(name) for name in LIBRARIES},
        "images": counts,
        "data": "photos" if data else "the drawn world",
    }

    def note(what: str, module: str, work: Work) -> None:
        everything[what] = measured(module, work)
        if json_:  # each time: the long form takes more than an hour
            json_.write_text(json.dumps(everything, indent=1))

    with tempfile.TemporaryDirectory() as folder:
        lay_out(Path(folder), counts, data)
        ours = {"epochs": FEW if quick else EPOCHS}
        for augment in (False, True):
            kind = "augmented" if augment else "plain"
            for precision in ("bfloat16", "float32"):
                if augment and precision == "float32":
                    continue
                work = Work(folder, augment=augment, precision=precision, **ours)
                note(f"tlkit {precision} {kind}", "contenders.tlkit_run", work)
                if not augment:
                    note(f"limits {precision}", "limits", work)
            for name in PEERS if not augment else [name for name in PEERS if name in AUGMENTED]:
                work = Work(folder, epochs=FEW if quick else FEW_LONG, augment=augment)
                note(f"{name} {kind}", f"contenders.{PEERS[name]}", work)
    show(everything, images, 2 * counts["test"])


def show(everything: dict[str, Any], images: int, tested: int) -> None:
    """The tables, with ratios."""
    for kind, precisions in (("plain", ("bfloat16", "float32")), ("augmented", ("bfloat16",))):
        title = (
            "no augmentation" if kind == "plain" else "augmented: tlkit keeps eight views, peers draw anew"
        )
        table = Table(title=f"VGG16, 150 px, last block and head, {title}", title_justify="left")
        for column in ("", "images/s", "50 epochs, s", "predicted/s", "memory, GB", "test accuracy"):
            table.add_column(column, justify="left" if not column else "right")
        for precision in precisions:
            table.add_column(f"tlkit {precision} is", justify="right")
        own = {precision: everything[f"tlkit {precision} {kind}"] for precision in precisions}
        rows = {f"tlkit {precision}": found for precision, found in own.items()}
        rows |= {name: everything[f"{name} {kind}"] for name in PEERS if f"{name} {kind}" in everything}
        for name, found in rows.items():
            seconds = whole(found, images)
            ratios = [
                ""
                if name in ("tlkit bfloat16", "tlkit float32")
                else f"{seconds / whole(each, images):.1f} x"
                for each in own.values()
            ]
            numbers = rate(found, images), seconds, tested / found["predict"], found["peak_memory"] / 1e9
            table.add_row(
                name,
                f"{numbers[0]:.1f}",
                f"{numbers[1]:,.0f}",
                f"{numbers[2]:.1f}",
                f"{numbers[3]:.1f}",
                f"{found['test_accuracy']:.3f}",
                *ratios,
            )
        console.print(table)
    for precision in ("bfloat16", "float32"):
        limits, found = everything[f"limits {precision}"], everything[f"tlkit {precision} plain"]
        frozen = found["frozen_views"] / found["frozen_pass"]
        step = rate(found, images)
        second = found["second"]
        plain = whole(everything["plain torch and timm plain"], images)
        again, head = (
            whole({**second[name], "process_start": found["process_start"]}, images)
            for name in ("rate", "head")
        )
        console.print(precision)
        for what, done, limit in (
            ("frozen pass, decoding included", frozen, limits["forward"]),
            ("training epoch, validation included", step, limits["step"]),
        ):
            share = f"{done / limit:.0%} of the pure arithmetic's {limit:.1f}"
            console.print(f"  {what}: {done:.1f} images/s, {share}")
        console.print(f"  matrix products: {limits['matrix_rate']:.0f} GFLOP/s")
        for what, seconds in (("another learning rate", again), ("another head alone", head)):
            console.print(
                f"  {what}, 50 epochs, everything included: {seconds:.0f} s, "
                f"{plain / seconds:.0f} x the plain loop's speed"
            )


if __name__ == "__main__":
    typer.run(main)
