"""Drawn images with two attributes, in any combination: a circle or not, and something red or not."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

CLASSES = ("circle", "red")
SIDE = 96


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


def _draw(has: np.ndarray, generator: np.random.Generator) -> Image.Image:
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
