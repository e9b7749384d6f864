"""Measures what the speed costs in accuracy: real photos, a pretrained network, from a cold start.

uv run --group bench python -m benchmarks.accuracy --data photos/train --weights weights/mobilenetv2_100
"""

from __future__ import annotations

import csv
import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import timm
import torch
import typer
from rich import box
from rich.console import Console
from rich.table import Table
from timm.data import create_transform, resolve_model_data_config
from torch import nn
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder

import tlkit
from benchmarks.data import lay_out
from tlkit.evaluation.metrics import TestScores
from tlkit.evaluation.significance import mcnemar
from tlkit.runtime.process import keep_freed_memory

COUNTS = {"train": 1000, "val": 400, "test": 300}
RECIPE = """
name = "accuracy"
data = {{ source = "folder", root = "{folder}" }}
backbone = {{ name = "local-dir:{weights}" }}
head = {{ name = "mlp", hidden = 256, dropout = 0.5 }}
training = {{ epochs = {epochs}, optimizer = {{ name = "adamw", lr = 1e-3 }} }}

[[phase]]
name = "bottleneck"
"""
AUGMENT = '{{ name = "affine", rotation = 10, shift = 0.05, zoom = 0.1, flip = true, views = {views} }}'


@dataclass(frozen=True)
class Measurement:
    """What one run measured.

    Attributes:
        seconds: duration, from a cold start.
        test: scores on the test images.
        correct: whether each test image is predicted correctly, by its id.
    """

    seconds: float
    test: TestScores
    correct: dict[str, bool]


def run_tlkit(folder: Path, recipe: Path, name: str, **overrides: Any) -> Measurement:
    """Runs a recipe with a feature store of its own."""
    os.environ["TLKIT_CACHE"] = str(folder / f"cache-{name}")
    began = time.perf_counter()
    settings = {key.replace("__", "."): value for key, value in overrides.items()}
    run = tlkit.run(recipe, out=folder / name, overrides=settings)
    seconds = time.perf_counter() - began
    with (run.folder / "phases" / "bottleneck" / "predictions.csv").open() as file:
        rows = {row["id"]: row for row in csv.DictReader(file) if row["split"] == "test"}
    correct = {name: row["label"] == row["predicted"] for name, row in rows.items()}
    return Measurement(seconds, run.results.phases[0].test, correct)


def run_plain_loop(folder: Path, weights: Path, epochs: int) -> list[tuple[float, float]]:
    """Trains the same head on the frozen network in a plain loop.

    Returns:
        After each epoch the seconds so far and the test accuracy. Evaluation on validation images counts as
        time, on test images it does not.
    """
    torch.manual_seed(1)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    net = timm.create_model(f"local-dir:{weights}", pretrained=True, num_classes=0).to(device)
    net.eval().requires_grad_(False)
    head = nn.Sequential(nn.Linear(net.num_features, 256), nn.ReLU(), nn.Dropout(0.5), nn.Linear(256, 2))
    head.to(device)
    transform = create_transform(**resolve_model_data_config(net), is_training=False)
    loaders = {
        split: DataLoader(
            ImageFolder(str(folder / split), transform), 32, shuffle=split == "train", num_workers=2
        )
        for split in COUNTS
    }
    optimizer = torch.optim.AdamW(head.parameters(), lr=1e-3)

    def accuracy(split: str) -> float:
        head.eval()
        with torch.inference_mode():
            correct = [
                (head(net(images.to(device))).argmax(1).cpu() == labels) for images, labels in loaders[split]
            ]
        return float(torch.cat(correct).float().mean())

    clock, epochs_so_far = 0.0, []
    for _ in range(epochs):
        began = time.perf_counter()
        head.train()
        for images, labels in loaders["train"]:
            with torch.no_grad():
                features = net(images.to(device, non_blocking=True))
            optimizer.zero_grad()
            nn.functional.cross_entropy(head(features), labels.to(device)).backward()
            optimizer.step()
        accuracy("val")
        clock += time.perf_counter() - began
        epochs_so_far.append((clock, accuracy("test")))
    return epochs_so_far


def main(
    data: Annotated[Path, typer.Option(help="Photos of cats and dogs.")],
    weights: Annotated[Path, typer.Option(help="A network in timm's folder format.")],
    epochs: int = 30,
    views_epochs: int = 12,
    plain_epochs: int = 5,
) -> None:
    """Compares bfloat16 with float32, eight cached views with fresh ones, and tlkit with a plain loop."""
    keep_freed_memory()
    console = Console(width=120)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        lay_out(folder / "photos", COUNTS, data)
        recipe = folder / "recipe.toml"
        text = RECIPE.format(folder=folder / "photos", weights=weights.resolve(), epochs=epochs)
        recipe.write_text(text)
        augmented = folder / "augmented.toml"
        runs = {
            "bfloat16": run_tlkit(folder, recipe, "bfloat16", training__precision="bfloat16"),
            "float32": run_tlkit(folder, recipe, "float32", training__precision="float32"),
        }
        for label, views in (("eight views", "8"), ("fresh views", '"fresh"')):
            augmented.write_text(text + f"augmentation = {AUGMENT.format(views=views)}\n")
            runs[label] = run_tlkit(folder, augmented, label.replace(" ", "-"), training__epochs=views_epochs)
        loop = run_plain_loop(folder / "photos", weights, plain_epochs)
    table = Table(title=f"tlkit, {weights.name}, head alone", title_justify="left", box=box.SIMPLE_HEAD)
    for column in ("", "seconds, cold", "test accuracy", "95% interval", "correct"):
        table.add_column(column, justify="left" if not column else "right")
    for label, measurement in runs.items():
        test = measurement.test
        low, high = test.ci95
        table.add_row(
            label,
            f"{measurement.seconds:.0f}",
            f"{test.accuracy:.3f}",
            f"{low:.3f} – {high:.3f}",
            f"{sum(measurement.correct.values())} of {test.n}",
        )
    console.print(table)
    for first, second in (("bfloat16", "float32"), ("eight views", "fresh views")):
        console.print(f"{first} against {second}: {compare(runs[first].correct, runs[second].correct)}")
    console.print("plain loop, float32, frozen network and head:")
    for epoch, (seconds, accuracy) in enumerate(loop, 1):
        console.print(f"  epoch {epoch}: {seconds:.0f} s, test accuracy {accuracy:.3f}")


def compare(first: dict[str, bool], second: dict[str, bool]) -> str:
    """Describes McNemar's exact test of the first against the second, on the same images."""
    images = list(first)
    before, after = (np.array([correct[image] for image in images]) for correct in (second, first))
    test = mcnemar(before, after)
    return f"{test.gained} images gained, {test.lost} lost, McNemar p = {test.p:.2g}"


if __name__ == "__main__":
    typer.run(main)
