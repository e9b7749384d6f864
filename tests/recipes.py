"""Recipes for tests, as their authors write them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tlkit.errors import RecipeError
from tlkit.recipe.recipe import read_recipe

BASE = """
name = "pets"
seed = 4
goal = 0.8

[data]
source = "folders"
root = "photos"
per_class = { train = 8, val = 2, test = 3 }

[backbone]
name = "vgg16"
features = "map"

[preprocess]
size = 96
resize = "squash"

[head]
name = "mlp"
hidden = 16

[training]
epochs = 5
optimizer = { name = "sgd", lr = 1e-2, momentum = 0.9 }

[[phase]]
name = "bottleneck"

[[phase]]
name = "fine-tune"
start_from = "bottleneck"
freeze = { name = "last-blocks", blocks = 1 }
augmentation = { name = "affine", rotation = 10, views = 8 }
epochs = 2
"""
MINIMAL = """
name = "minimal"
data = { source = "folders", root = "photos" }
backbone = "vgg16"
[[phase]]
name = "only"
"""


def write_recipe(folder: Path, text: str, name: str = "recipe.toml") -> Path:
    """Writes a recipe below `folder`, and returns its path."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def problems(path: Path, *overrides: str) -> list[str]:
    """Returns what is wrong with a recipe that cannot be read."""
    with pytest.raises(RecipeError) as caught:
        read_recipe(path, overrides)
    return caught.value.problems
