"""What the speed costs in accuracy: real photos, a pretrained network, from a cold start.

uv run --group bench python -m benchmarks.accuracy --data photos/train --weights weights/mobilenetv2_100
"""

from __future__ import annotations

import csv
import os
import tempfile
import time
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
from tlkit.evaluation.significance import mcnemar
from tlkit.runtime.memory import keep_freed_memory

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


def ours(folder: Path, recipe: Path, name: str, **changes: Any) -> dict[str, Any]:
    """A run with a store of its own: seconds, accuracy, and each test image's prediction."""
    os.environ["TLKIT_CACHE"] = str(folder / f"cache-{name}")
    began = time.perf_counter()
    settings = {key.replace("__", "."): value for key, value in changes.items()}
    run = tlkit.run(recipe, out=folder / name, set=settings)
    seconds = time.perf_counter() - began
    with (run.folder / "phases" / "bottleneck" / "predictions.csv").open() as file:
        rows = {row["id"]: row for row in csv.DictReader(file) if row["split"] == "test"}
    right = {name: row["label"] == row["predicted"] for name, row in rows.items()}
    return {"seconds": seconds, "test": run.results["phases"][0]["test"], "right": right}


def plain(folder: Path, weights: Path, epochs: int) -> list[tuple[float, float]]:
    """A plain loop on the frozen network with the same head: after each epoch its seconds and test accuracy.

    The clock stands still while the test images are looked at; it runs while the validation images are.
    """
    torch.manual_seed(1)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    net = timm.create_model(f"local-dir:{weights}", pretrained=True, num_classes=0).to(device)
    net.eval().requires_grad_(False)
    head = nn.Sequential(nn.Linear(net.num_features, 256), nn.ReLU(), nn.Dropout(0.5), nn.Linear(256, 2))
    head.to(device)
    transform = create_transform(**resolve_model_data_config(net), is_training=False)
    loaders = {
        part: DataLoader(
            ImageFolder(str(folder / part), transform), 32, shuffle=part == "train", num_workers=2
        )
        for part in COUNTS
    }
    optimizer = torch.optim.AdamW(head.parameters(), lr=1e-3)

    def accuracy(part: str) -> float:
        head.eval()
        with torch.inference_mode():
            pairs = [
                (head(net(images.to(device))).argmax(1).cpu() == labels) for images, labels in loaders[part]
            ]
        return float(torch.cat(pairs).float().mean())

    clock, found = 0.0, []
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
        found.append((clock, accuracy("test")))
    return found


def main(
    data: Annotated[Path, typer.Option(help="Photos of cats and dogs.")],
    weights: Annotated[Path, typer.Option(help="A network in timm's folder format.")],
    epochs: int = 30,
    views_epochs: int = 12,
    plain_epochs: int = 5,
) -> None:
    """bfloat16 beside float32, eight kept views beside fresh ones, tlkit beside a plain loop."""
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
            "bfloat16": ours(folder, recipe, "bfloat16", training__precision="bfloat16"),
            "float32": ours(folder, recipe, "float32", training__precision="float32"),
        }
        for label, views in (("eight views", "8"), ("fresh views", '"fresh"')):
            augmented.write_text(text + f"augmentation = {AUGMENT.format(views=views)}\n")
            runs[label] = ours(folder, augmented, label.replace(" ", "-"), training__epochs=views_epochs)
        loop = plain(folder / "photos", weights, plain_epochs)
    table = Table(title=f"tlkit, {weights.name}, head alone", title_justify="left", box=box.SIMPLE_HEAD)
    for column in ("", "seconds, cold", "test accuracy", "95% interval", "right"):
        table.add_column(column, justify="left" if not column else "right")
    for label, found in runs.items():
        test = found["test"]
        low, high = test["ci95"]
        right = sum(found["right"].values())
        interval = f"{low:.3f} – {high:.3f}"
        table.add_row(
            label, f"{found['seconds']:.0f}", f"{test['accuracy']:.3f}", interval, f"{right} of {test['n']}"
        )
    console.print(table)
    for one, other in (("bfloat16", "float32"), ("eight views", "fresh views")):
        console.print(f"{one} against {other}: {compared(runs[one]['right'], runs[other]['right'])}")
    console.print("plain loop, float32, frozen network and head:")
    for number, (seconds, right) in enumerate(loop, 1):
        console.print(f"  epoch {number}: {seconds:.0f} s, test accuracy {right:.3f}")


def compared(one: dict[str, bool], other: dict[str, bool]) -> str:
    """McNemar's exact test on the same images."""
    first, second = (np.array([each[name] for name in one]) for each in (one, other))
    found = mcnemar(second, first)
    return f"{found['gained']} images gained, {found['lost']} lost, McNemar p = {found['p']:.2g}"


if __name__ == "__main__":
    typer.run(main)
