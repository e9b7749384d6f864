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
    """Draws images and ``labels.csv``, with a column of labels, ``|`` between them, and 0/1 columns."""
    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(seed)
    with (folder / "labels.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["path", "label", *CLASSES])
        for number in range(count):
            has = generator.random(2) < (0.5, 0.3)
            _draw(has, generator).save(folder / f"{number}.png")
            labels = [name for name, present in zip(CLASSES, has, strict=True) if present]
            rows.writerow([f"{number}.png", "|".join(labels), *map(int, has)])
    return folder


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
