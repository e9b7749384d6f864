"""Chooses the backbone of `tlkit fit --backbone auto`."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

from tlkit.errors import UnreachableWeightsError
from tlkit.evaluation.metrics import TestScores
from tlkit.experiment.backbones import BACKBONE, choose_backbone
from tlkit.experiment.observer import Observer
from tlkit.experiment.runner import run
from tlkit.plugins.registry import Registry
from tlkit.recipe.recipe import Recipe
from tlkit.runtime.distributed import broadcast_from_main

#: The name that lets probes decide, among these.
AUTO = "auto"
CANDIDATES = (BACKBONE, "efficientnet-lite0", "efficientnet-lite1", "efficientnet-lite2")


def choose_by_probe(
    choose_recipe: Callable[[str], Recipe], *, device: str | None, registry: Registry, observer: Observer
) -> str:
    """Returns the backbone whose probe is most accurate, of those whose weights can be had.

    Equally accurate ones are compared by log loss. The features that this computes are cached, so that those
    of the chosen backbone cost nothing afterwards.

    Args:
        choose_recipe: returns the recipe of a probe with a backbone.
        device: such as "cpu" or "cuda:1"; the best one unless given.
        registry: of all parts.
        observer: watches, and is told of each backbone's accuracy.

    Raises:
        UnreachableWeightsError: no candidate's weights can be had.
    """
    results: dict[str, TestScores] = {}
    unreachable: UnreachableWeightsError | None = None
    with tempfile.TemporaryDirectory(prefix="tlkit-backbones-") as folder:
        for name in CANDIDATES:
            if name != BACKBONE and name not in registry.names("backbone"):
                continue
            try:
                choose_backbone(name, None, registry=registry, observer=observer)
            except UnreachableWeightsError as error:
                unreachable = error
                observer.note(f"{name} is not compared: its weights cannot be had here")
                continue
            out = broadcast_from_main(str(Path(folder) / name))
            ended = run(choose_recipe(name), out=out, device=device, observer=observer, registry=registry)
            scores = results[name] = ended.results.phases[-1].measured
            observer.note(f"{name}: accuracy {scores.accuracy:.3f}, log loss {scores.log_loss:.3f}")
    if not results:
        assert unreachable is not None  # the built-in candidate is always tried
        raise unreachable
    return max(results, key=lambda name: (results[name].accuracy, -results[name].log_loss))
