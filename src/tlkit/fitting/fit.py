"""Trains a classifier on a folder of class folders, without a recipe: makes the choices, and shows them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from tlkit.errors import RecipeError
from tlkit.experiment.observer import Observer, Run
from tlkit.experiment.runner import run
from tlkit.fitting.backbones import choose_backbone
from tlkit.plugins.loader import load_registry
from tlkit.plugins.registry import Registry
from tlkit.recipe.recipe import Recipe, make_recipe


def fit(
    folder: Path | str,
    *,
    backbone: str | None = None,
    weights: str | None = None,
    epochs: int | None = None,
    seed: int = 1,
    out: Path | str | None = None,
    device: str | None = None,
    observer: Observer | None = None,
    registry: Registry | None = None,
) -> Run:
    """Trains a classifier on a folder of class folders.

    A linear head is trained on cached features, then fine-tuned together with the network's last block; the
    second result is kept only if it is better on validation. Both stop when validation has not improved for a
    while. Images that cannot be used are left out and listed in the results, under ``data.rejected``.

    Args:
        folder: a folder per class, with or without train, val and test above them.
        backbone: any backbone's name, ``local-dir:…`` and ``hf-hub:…`` included; see `choose_backbone` unless
            given.
        weights: "pretrained", "none", or a .safetensors file; the backbone's default unless given.
        epochs: maximum per phase; 50 and 20 unless given.
        seed: of splits, order, augmentation and new weights.
        out: the run folder; ``runs/<name>/<number>`` unless given.
        device: such as "cpu" or "cuda:1"; the best one unless given.
        observer: watches the run.
        registry: the parts to choose from; all that is installed unless given.

    Returns:
        The run; `tlkit.load(run.folder)` is the classifier, and ``recipe.toml`` in it the recipe.

    Raises:
        TlkitError: something in the images or the machine must be corrected first.
    """
    if epochs is not None and epochs < 1:
        raise RecipeError([f"epochs: must be at least 1, and is {epochs}"], recipe="fit")
    registry, observer = registry or load_registry(), observer or Observer()
    chosen = choose_backbone(backbone, weights, registry=registry, observer=observer)
    recipe = choose_recipe(Path(folder), backbone=chosen, weights=weights, epochs=epochs, seed=seed)
    return run(recipe, out=out, device=device, observer=observer, registry=registry)


def choose_recipe(
    folder: Path, *, backbone: str, weights: str | None, epochs: int | None, seed: int
) -> Recipe:
    """Returns the recipe that `fit` runs."""
    network: dict[str, Any] = {"name": _absolute(backbone)}
    if weights is not None:
        network["weights"] = weights if weights in ("pretrained", "none") else str(Path(weights).absolute())
    name = re.sub(r"[^A-Za-z0-9_-]+", "-", folder.absolute().name).strip("-_") or "fit"
    return make_recipe(
        {
            "name": name,
            "seed": seed,
            # the user cannot edit this recipe before it runs: unreadable images are skipped, and listed
            "data": {"source": "folder", "root": str(folder.absolute()), "on_unreadable": "skip"},
            "backbone": network,
            "head": "linear",
            "phase": [
                {
                    "name": "bottleneck",
                    "epochs": 50 if epochs is None else epochs,
                    "patience": 10,
                    "optimizer": {"name": "adamw", "lr": 1e-3},
                },
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
                    "epochs": 20 if epochs is None else epochs,
                    "patience": 5,
                    "optimizer": {"name": "adamw", "lr": 1e-4, "weight_decay": 0.02},
                },
            ],
        }
    )


def _absolute(backbone: str) -> str:
    source, _, path = backbone.partition(":")
    return f"{source}:{Path(path).absolute()}" if source == "local-dir" else backbone
