"""The frozen pass alone: computes what a run of a recipe will read, or a part of it."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tlkit.data.shard import Shard
from tlkit.experiment.computing import computing_on
from tlkit.experiment.frozen_pass import FrozenPass
from tlkit.experiment.observer import Observer
from tlkit.experiment.runner import prepare_experiment, without_training
from tlkit.experiment.worker_pass import make_engine
from tlkit.feature_store.store import FeatureStore
from tlkit.plugins.loader import load_registry
from tlkit.plugins.registry import Registry
from tlkit.recipe.recipe import Recipe, as_recipe
from tlkit.runtime.devices import choose_device
from tlkit.runtime.process import keep_freed_memory


@dataclass(frozen=True)
class ComputedFeatures:
    """What a frozen pass has done.

    Attributes:
        views: number of image views that the recipe caches, or of this part's.
        computed: number of those that were computed now; the others were in the store.
        seconds: duration of the pass.
        folder: the feature store.
        later: the phases whose features depend on what an earlier phase trains: a run computes them.
    """

    views: int
    computed: int
    seconds: float
    folder: Path
    later: tuple[str, ...]


def compute_features(
    recipe: Recipe | Path | str,
    *,
    shard: str | None = None,
    overrides: Mapping[str, Any] | Sequence[str] = (),
    device: str | None = None,
    observer: Observer | None = None,
    registry: Registry | None = None,
) -> ComputedFeatures:
    """Computes the features that a run of a recipe will read, and nothing else.

    What the store has is not computed again, so an interrupted pass goes on where it stopped. Several
    processes, also on several computers that share the store, compute a part each; the features are those of
    one process, bit for bit, if the computers are alike and their numbers of threads are equal.

    Args:
        recipe: a recipe, its file, or a folder that holds ``recipe.toml``.
        shard: the part of the images to compute, such as ``"3/8"``; all unless given.
        overrides: keys to set in a recipe that is read from a file, as for `tlkit.run`.
        device: such as "cpu" or "cuda:1"; the best one unless given.
        observer: is shown progress.
        registry: the parts to choose from; all that is installed unless given.

    Raises:
        TlkitError: something in the recipe, the data or the machine must be corrected first.
    """
    part = Shard.parse(shard) if shard is not None else None
    recipe = as_recipe(recipe, overrides)
    observer, registry = observer or Observer(), registry or load_registry()
    torch_device = choose_device(device)
    keep_freed_memory()
    with computing_on(torch_device), FeatureStore() as store:
        experiment = prepare_experiment(recipe, recipe.phases, registry, torch_device, observer)
        now = without_training(experiment, experiment.phases, recipe)
        frozen_pass = FrozenPass(experiment.dataset, store, observer, shard=part)
        began = time.perf_counter()
        frozen_pass.run(now, make_engine(recipe, registry))
    names = {prepared.phase.name for prepared in now}
    return ComputedFeatures(
        views=frozen_pass.requested,
        computed=sum(frozen_pass.computed.values()),
        seconds=time.perf_counter() - began,
        folder=store.folder,
        later=tuple(phase.name for phase in recipe.phases if phase.name not in names),
    )
