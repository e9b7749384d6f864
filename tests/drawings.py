"""Drawn images with two attributes, in any combination: a circle or not, and something red or not."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from tlkit.recipe.recipe import Recipe, make_recipe

CLASSES = ("circle", "red")
SIDE = 96
#: Enough, with all images in a batch and this decay, to be where all initial weights lead to.
EPOCHS = 100
OPTIMIZER = {"name": "sgd", "lr": 0.03, "momentum": 0.9, "weight_decay": 0.2}


def draw(folder: Path, count: int, seed: int = 0) -> Path:
    """Draws images, and CSV files that list them.

    ``labels.csv`` has a column of labels, ``|`` between them; ``few.csv`` those of the first 30 images. Of
    these, ``columns.csv`` has a column of 0 and 1 for each class.
    """
    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(seed)
    rows = []
    for number in range(count):
        has = generator.random(2) < (0.5, 0.3)
        _draw(has, generator).save(folder / f"{number}.png")
        rows.append([f"{number}.png", has])
    labels = [[name, "|".join(np.array(CLASSES)[has].tolist())] for name, has in rows]
    _write(folder / "labels.csv", ["path", "label"], labels)
    _write(folder / "few.csv", ["path", "label"], labels[:30])
    _write(folder / "columns.csv", ["path", *CLASSES], [[name, *map(int, has)] for name, has in rows[:30]])
    return folder


def _write(path: Path, header: list[str], rows: list[list[Any]]) -> None:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])


def _draw(has: NDArray[np.bool_], generator: np.random.Generator) -> Image.Image:
    """Draws a shape on noise: a circle or a square, reddish or greenish, both hard to tell at times."""
    circle, red = has
    noise = generator.normal(128, 45, (SIDE, SIDE, 3)).clip(0, 255).astype(np.uint8)
    image = Image.fromarray(noise)
    radius = int(generator.integers(8, 24))
    x, y = generator.integers(radius, SIDE - radius, 2)
    shade = int(generator.integers(0, 90))
    colour = (128 + shade, 128 - shade, 128) if red else (128 - shade, 128 + shade, 128)
    box = (x - radius, y - radius, x + radius, y + radius)
    pen = ImageDraw.Draw(image)
    (pen.ellipse if circle else pen.rectangle)(box, fill=colour)
    return image


def drawings_recipe(images: Path, weights: Path, **tables: Any) -> Recipe:
    """Returns a recipe for drawn images: a linear head on real features."""
    return make_recipe(
        {
            "name": "drawings",
            "task": "multilabel",
            "goal": 0.6,
            "data": {"source": {"name": "csv", "separator": "|"}, "root": str(images)},
            "backbone": {"name": f"local-dir:{weights.resolve()}", "features": "pooled"},
            "preprocess": {"size": 64},
            "training": {
                "epochs": EPOCHS,
                "precision": "float32",
                "keep": "last",
                "batch_size": 1000,
                "optimizer": OPTIMIZER,
            },
            "phase": [{"name": "linear"}],
            **tables,
        }
    )
