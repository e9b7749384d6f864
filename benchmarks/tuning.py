"""Measures how optimistic the accuracy is that `tlkit tune` reports, where the truth is known.

uv run python -m benchmarks.tuning --worlds 50

Worlds are those of benchmarks.coverage. In each, settings of a head are chosen by the trials of `tlkit tune`
on a few images of each class, and the chosen ones are fitted to all of these. Their true accuracy is that on
20,000 more images.
"""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from statistics import mean, stdev
from tempfile import TemporaryDirectory
from typing import Annotated

import numpy as np
import torch
import typer
from torch import nn

import tlkit
from benchmarks.coverage import FEATURES, TRUTH, World
from tlkit.analysis.head_folds import FoldedFeatures, out_of_fold_logits
from tlkit.analysis.search_space import SearchSpace, Settings, read_space
from tlkit.analysis.trials import Trials
from tlkit.builtin.losses import cross_entropy
from tlkit.data.folds import split_stratified
from tlkit.evaluation.intervals import independent_images, wilson
from tlkit.recipe.recipe import make_recipe

FOLDS = 5
SPACE = (
    "head.name=linear,mlp,knn,prototype",
    "head.dropout=0:0.8",
    "head.hidden=16,64",
    "head.neighbours=3:40",
    "training.optimizer.lr=1e-4:1e-1:log",
)


def optimism(number: int, trials: int, per_class: int, classes: int) -> tuple[float, float, bool]:
    """Returns by how much the best trial's accuracy, and the reported one, are above the truth.

    The third value is whether the reported interval holds the truth.
    """
    torch.set_num_threads(1)
    registry, generator = tlkit.load_registry(), np.random.default_rng([number, per_class, classes])
    world = World.random(classes, generator)
    features, labels = world.draw(per_class, generator)
    more, truths = world.draw(TRUTH // classes, generator)
    folds = np.empty(len(labels), np.int64)
    for fold, (_, held_out) in enumerate(split_stratified(labels, FOLDS, number)):
        folds[held_out] = fold
    order = np.argsort(folds, kind="stable")
    features, labels, folds = features[torch.from_numpy(order)], labels[order], folds[order]
    recipe = make_recipe(
        {
            "name": "world",
            "seed": number,
            "backbone": "none",
            "training": {"epochs": 8, "batch_size": 64, "keep": "last"},
            "phase": [{"name": "head"}],
        }
    )
    phase = recipe.phase("head")
    space = SearchSpace(recipe, phase, read_space(SPACE), registry, {"knn", "prototype"})
    net = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, FEATURES))
    backbone = tlkit.Backbone(net, preprocess=tlkit.Preprocess(size=8))
    names = tuple("abcdefgh"[:classes])
    data = FoldedFeatures((features,), labels, folds, FOLDS, classes, number)
    with TemporaryDirectory() as folder:
        tried = Trials(Path(folder), space, data, backbone, names, registry)
        tried.run(trials, tlkit.Observer())
        outcomes = tried.outcomes()
    best, reported = tried.choose(outcomes)

    def truth(settings: Settings) -> float:
        chosen = space.tuned(settings).phase("head")
        torch.manual_seed(number)
        head = registry.make("head", chosen.head.name, chosen.head.options, backbone, names)
        # one fold, the 20,000 images, is held out
        everything = FoldedFeatures(
            (torch.cat([features, more]),),
            np.concatenate([labels, truths]),
            np.repeat([-1, 0], [len(labels), len(truths)]),
            *(1, classes, number),
        )
        loss = cross_entropy(names, np.bincount(labels).tolist())
        logits = out_of_fold_logits(head, everything, chosen.training, loss)[len(labels) :]
        return float((logits.argmax(1) == truths).mean())

    true = truth(outcomes[best].settings)
    low, high = wilson(reported, independent_images(len(labels)))
    return float(outcomes[best].correct.mean()) - true, reported - true, low <= true <= high


def main(
    worlds: Annotated[int, typer.Option(help="Number of worlds per row.")] = 50,
    trials: Annotated[int, typer.Option(help="Number of trials in each.")] = 30,
    processes: int = 2,
) -> None:
    """Print a table of the mean optimism, in points of accuracy, with its standard error."""
    typer.echo(
        "| classes | images per class | best trial's accuracy | reported | intervals that hold the truth |"
    )
    typer.echo("| ---: | ---: | ---: | ---: | ---: |")
    with ProcessPoolExecutor(processes) as pool:
        for classes, per_class in ((2, 200), (5, 50), (2, 50)):
            task = partial(optimism, trials=trials, per_class=per_class, classes=classes)
            naive, reported, holds = zip(*pool.map(task, range(worlds)), strict=True)
            cells = [
                f"{100 * mean(values):+.2f} ± {100 * stdev(values) / worlds**0.5:.2f}"
                for values in (naive, reported)
            ]
            row = " | ".join([str(classes), str(per_class), *cells, f"{sum(holds)} of {worlds}"])
            typer.echo(f"| {row} |")


if __name__ == "__main__":
    typer.run(main)
