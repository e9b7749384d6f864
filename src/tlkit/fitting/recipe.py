"""Chooses the recipe of `tlkit fit` from the images."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from tlkit.analysis.images import ImageData
from tlkit.errors import DataError, RecipeError, close_matches
from tlkit.evaluation.metrics import UNEQUAL_RATIO
from tlkit.experiment.backbones import absolute_name
from tlkit.experiment.tracking import tracking_problems
from tlkit.parts.source import Source
from tlkit.parts.task import Task
from tlkit.recipe.recipe import Recipe, make_recipe
from tlkit.recipe.schema import Tracker
from tlkit.utils.formatting import shortlist

Quality = Literal["best", "fast"]
QUALITIES: tuple[Quality, ...] = get_args(Quality)
TASKS: tuple[Task, ...] = get_args(Task)
TRACKERS: tuple[Tracker, ...] = get_args(Tracker)

#: Up to this many images, all are used in a cross-validation; of more, a part is held out for testing.
FOLDS_UP_TO = 5000
HELD_OUT = 0.2
#: Folds and repeats where a probe is fitted in a fraction of a second; of more images fewer are enough.
FOLDS, FEW_FOLDS, REPEATS = 10, 5, 10
FOLDS_ENOUGH_FOR = 300
#: What the repeats of a probe's cross-validation may cost, in images squared times classes times fits.
COST = 6e7
#: Epochs of fine-tuning.
EPOCHS = 10


@dataclass(frozen=True)
class FolderCounts:
    """What a source of images has.

    Attributes:
        images: number of images that are not set aside for testing.
        per_class: number of these of each class.
        has_test: whether the source sets test images aside.
        has_val: whether it sets validation images aside, too.
        has_groups: whether it has groups of images, which only folds keep together.
    """

    images: int
    per_class: dict[str, int]
    has_test: bool
    has_val: bool
    has_groups: bool = False

    @staticmethod
    def of(source: Source) -> FolderCounts:
        """Counts the images of a source, without reading them.

        Raises:
            DataError: there are fewer than two classes with images.
        """
        samples = [sample for sample in source.samples if sample.split != "test"]
        counts = Counter(source.classes[index] for sample in samples for index in sample.class_indices)
        splits = {sample.split for sample in source.samples}
        if len(counts) < 2:
            raise DataError(
                "there are images to train on of fewer than two classes: put each class's images into a "
                "folder of its own"
            )
        has_groups = any(sample.group for sample in samples)
        return FolderCounts(len(samples), dict(counts), "test" in splits, "val" in splits, has_groups)

    @property
    def are_unequal(self) -> bool:
        """Whether the classes are so unequal that balanced accuracy should decide."""
        return max(self.per_class.values()) > UNEQUAL_RATIO * min(self.per_class.values())


@dataclass(frozen=True)
class FitOptions:
    """What a user asks of `fit`; see `tlkit.fit`."""

    weights: str | None = None
    quality: Quality = "best"
    folds: int | None = None
    test: float | None = None
    epochs: int | None = None
    seed: int = 1
    task: Task = "multiclass"
    group: str | None = None
    trackers: tuple[str, ...] = ()

    @property
    def fine_tunes(self) -> bool:
        """Whether fine-tuning is tried; of several labels, fine-tuning after a probe was not measured yet."""
        return self.quality == "best" and self.task == "multiclass"

    def check(self) -> None:
        """Raises RecipeError unless the options are possible and go together."""
        problems = []
        if self.quality not in QUALITIES:
            hint = close_matches(str(self.quality), QUALITIES)
            problems.append(f"quality: there is no {self.quality!r}{hint}: {' or '.join(QUALITIES)}")
        if self.task not in TASKS:
            hint = close_matches(str(self.task), TASKS)
            problems.append(f"task: there is no {self.task!r}{hint}: {' or '.join(TASKS)}")
        for name in self.trackers:
            if name not in TRACKERS:
                hint = close_matches(name, TRACKERS)
                problems.append(f"track: there is no tracker {name!r}{hint}: {', '.join(TRACKERS)}")
        problems += tracking_problems([name for name in TRACKERS if name in self.trackers], "track")
        if self.epochs is not None and self.epochs < 1:
            problems.append(f"epochs: must be at least 1, and is {self.epochs}")
        elif self.epochs is not None and not self.fine_tunes:
            why = "several labels per image" if self.task == "multilabel" else "quality fast"
            problems.append(f"epochs: are those of fine-tuning, which {why} leaves out")
        if self.test is not None and not 0 < self.test < 0.9:
            problems.append(f"test: must be a fraction above 0 and below 0.9, and is {self.test}")
        if self.folds is not None and self.test is not None:
            problems.append("folds and test exclude each other: name one of them")
        if self.group is not None and self.test is not None:
            problems.append("group and test exclude each other: only folds keep groups together")
        if problems:
            raise RecipeError(problems, recipe="fit")


def choose_recipe(data: ImageData, options: FitOptions, counts: FolderCounts, backbone: str) -> Recipe:
    """Returns the recipe that `fit` runs.

    Raises:
        RecipeError: the options do not suit the images.
    """
    weights, epochs = options.weights, options.epochs
    name = re.sub(r"[^A-Za-z0-9_-]+", "-", data.name).strip("-_") or "fit"
    network: dict[str, Any] = {"name": absolute_name(backbone)}
    if weights is not None:
        network["weights"] = weights if weights in ("pretrained", "none") else str(Path(weights).absolute())
    division = _division(counts, options)
    phases: list[dict[str, Any]] = [{"name": "probe"}]
    training: dict[str, Any] = {"mirror": True}
    if options.task == "multilabel" and "folds" in division:
        division["repeats"] = 1  # a probe per class takes seconds
    if options.task == "multiclass":
        training["monitor"] = "balanced_accuracy" if counts.are_unequal else "accuracy"
    if options.fine_tunes:
        # folds compare fine-tuning with the probe; without them, validation images do
        phases.append(_fine_tuning(epochs or EPOCHS, "last" if "folds" in division else "best"))
    return make_recipe(
        {
            "name": name,
            "task": options.task,
            "seed": options.seed,
            "data": {
                **data.table(),
                # the user cannot edit this recipe before it runs: unreadable images are skipped, and listed
                "on_unreadable": "skip",
                **division,
            },
            "backbone": network,
            "head": "probe",
            "training": training,
            **({"track": {"with": list(options.trackers)}} if options.trackers else {}),
            "phase": phases,
        }
    )


def _division(counts: FolderCounts, options: FitOptions) -> dict[str, Any]:
    """Returns how the images are divided: into folds, or into splits."""
    folds, test = options.folds, options.test
    if test is not None and counts.has_test:
        raise RecipeError(["test: there are test images already"], recipe="fit")
    if test is not None and counts.has_groups:
        raise RecipeError(["test: there are groups, which only folds keep together"], recipe="fit")
    if counts.has_val and test is not None:
        raise RecipeError(["test: there are validation images, but no test images: add some"], recipe="fit")
    grouped = {} if options.group is None else {"group": options.group}
    if counts.has_val and counts.has_test and folds is None:
        if grouped:
            problem = "group: the images are divided already: name the number of folds to divide them anew"
            raise RecipeError([problem], recipe="fit")
        return {}
    # validation images alone, and groups, are kept apart in folds only
    divisible = not counts.has_val and not counts.has_groups and not grouped
    if test is not None or (folds is None and counts.images > FOLDS_UP_TO and divisible):
        return (
            {} if counts.has_test else {"fractions": {"val": 0.1, "test": HELD_OUT if test is None else test}}
        )
    most = max(counts.per_class.values())
    if folds is None:
        folds = min(most, FOLDS if counts.images <= FOLDS_ENOUGH_FOR else FEW_FOLDS)
    if most < 2 or folds > most:
        few = f"{folds} folds need a class with as many images" if folds > 1 else "add images"
        listed = shortlist([f"{name} {count}" for name, count in counts.per_class.items()])
        raise RecipeError([f"no class has {max(2, folds)} images ({listed}): {few}"], recipe="fit")
    fits = COST / (counts.images**2 * len(counts.per_class))
    return {"folds": folds, "repeats": max(1, min(REPEATS, int(fits / folds))), **grouped}


def _fine_tuning(epochs: int, keep: Literal["best", "last"]) -> dict[str, Any]:
    """Returns the phase that trains the whole network."""
    return {
        "name": "fine-tune",
        "start_from": "probe",
        "freeze": "nothing",
        "statistics": "keep",  # few images would spoil the pretrained ones
        "augmentation": {"name": "standard", "views": "fresh"},
        "optimizer": {"name": "adamw", "lr": 1e-3, "weight_decay": 0.05, "layer_decay": 0.75},
        "epochs": epochs,
        "keep": keep,
        "loss": {"name": "cross-entropy", "label_smoothing": 0.1},
        "ema": 0.99,
        "schedule": {"name": "cosine", "warmup_epochs": min(1, epochs - 1)},
    }
