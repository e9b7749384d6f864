"""A recipe of two phases that runs within seconds, and readers of what its run folder has."""

from __future__ import annotations

import csv
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tlkit.experiment.observer import Run
from tlkit.experiment.results import Results
from tlkit.recipe.recipe import Recipe, make_recipe

#: Runs the recipe; see the fixture `run` of tests/experiment.
Runner = Callable[..., Run]

RECIPE = """
name = "few"
seed = 3
goal = 0.5

[data]
source = "catsdogs"
root = "{photos}"
per_class = {{ train = 8, val = 3, test = 4 }}

[backbone]
{backbone}

[preprocess]
size = 64

[training]
epochs = 3
batch_size = 4
precision = "float32"
optimizer = {{ name = "sgd", lr = 1e-2, momentum = 0.9 }}

[[phase]]
name = "bottleneck"

[[phase]]
name = "fine-tune"
start_from = "bottleneck"
freeze = {{ name = "all-but-last-blocks", blocks = 1 }}
"""

#: The recipe's backbones: one plain, one with batch norm and residuals, one transformer.
BACKBONES = {
    "plain": 'name = "vgg16-quarter"\nfeatures = "map"\nweights = "none"',
    "residual": 'name = "test_resnet"\nweights = "none"',
    "transformer": (
        'name = "vit_tiny_patch16_224"\nweights = "none"\n'
        "model_args = { img_size = 64, depth = 3, drop_path_rate = 0.2 }"
    ),
}

#: A probe on pooled features of real weights.
PROBE = """
name = "probe"
data = {{ source = "folder", root = "{photos}", folds = 2 }}
backbone = {{ name = "local-dir:{weights}", features = "pooled" }}
head = "probe"
preprocess = {{ size = 96 }}

[[phase]]
name = "probe"
"""


def two_phases(folder: Path, *, backbone: dict[str, Any], epochs: int) -> Recipe:
    """Returns a recipe for a folder of class folders: a linear head, then the last block."""
    return make_recipe(
        {
            "name": "by-class",
            "data": {"source": "folder", "root": str(folder), "on_unreadable": "skip"},
            "backbone": backbone,
            "head": "linear",
            "training": {"epochs": epochs},
            "phase": [
                {"name": "bottleneck", "patience": 10, "optimizer": {"name": "adamw", "lr": 1e-3}},
                {
                    "name": "fine-tune",
                    "start_from": "bottleneck",
                    "freeze": {"name": "all-but-last-blocks", "blocks": 1},
                    "augmentation": {
                        "name": "affine",
                        "rotation": 10,
                        "shift": 0.05,
                        "zoom": 0.1,
                        "flip": True,
                        "views": 4,
                    },
                    "patience": 5,
                    "optimizer": {"name": "adamw", "lr": 1e-4, "weight_decay": 0.02},
                },
            ],
        }
    )


def write_recipe(path: Path, photos: Path, kind: str = "residual", text: str = RECIPE) -> Path:
    """Writes the recipe for a folder of photos and a kind of backbone."""
    path.write_text(text.format(photos=photos, backbone=BACKBONES[kind]))
    return path


def history(ended: Run, phase: str) -> list[dict[str, float]]:
    """Returns the rows of a phase's history.csv."""
    with (ended.folder / "phases" / phase / "history.csv").open() as file:
        return [{key: float(value) for key, value in row.items() if value} for row in csv.DictReader(file)]


def train_losses(ended: Run, phase: str) -> list[float]:
    """Returns the training loss of each epoch of a phase."""
    return [row["train_loss"] for row in history(ended, phase)]


def predictions(ended: Run, phase: str) -> list[tuple[str, ...]]:
    """Returns split, id, label and predicted class of each row of a phase's predictions.csv."""
    columns = ("split", "id", "label", "predicted")
    with (ended.folder / "phases" / phase / "predictions.csv").open() as file:
        return [tuple(row[column] for column in columns) for row in csv.DictReader(file)]


def without(results: Results, *keys: str) -> dict[str, Any]:
    """Returns results without some keys of their phases, such as the seconds, which are never the same."""
    return results.model_dump(exclude={"phases": {"__all__": set(keys)}})


def copy_run(folder: Path, target: Path) -> Path:
    """Copies a run folder; weights are linked, since they are large."""

    def copy(source: str, destination: str) -> None:
        if source.endswith(".safetensors"):
            os.link(source, destination)
        else:
            shutil.copyfile(source, destination)

    shutil.copytree(folder, target, copy_function=copy)
    return target
