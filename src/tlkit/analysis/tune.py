"""Tunes a phase's head and training on cached features, with Optuna, by cross-validation."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import numpy as np
from filelock import FileLock, Timeout
from pydantic import Field

from tlkit.analysis.encoder import Encoder
from tlkit.analysis.head_folds import FoldedFeatures
from tlkit.analysis.range_test import RangeTest
from tlkit.analysis.search_space import HEAD_NAME, Choice, SearchSpace, Value, read_space
from tlkit.analysis.trials import Trials
from tlkit.data.dataset import Dataset
from tlkit.data.folds import draw_folds
from tlkit.errors import RecipeError, ReportError, RunFolderError
from tlkit.evaluation.intervals import independent_images, wilson
from tlkit.experiment.observer import Observer
from tlkit.experiment.runner import prepare_experiment
from tlkit.experiment.validation import recipe_problems
from tlkit.parts.head import SelfFittingHead
from tlkit.plugins.loader import load_registry
from tlkit.plugins.registry import Registry
from tlkit.recipe.recipe import Phase, Recipe, as_recipe
from tlkit.recipe.schema import Monitor
from tlkit.recipe.task import require_one_label
from tlkit.runtime.devices import choose_device
from tlkit.utils.atomic_write import atomic_write
from tlkit.utils.json_files import (
    JsonModel,
    NonNegative,
    Proportion,
    read_json,
    read_text,
    write_json,
)

FILE = "tuning.json"
#: Folders and files of a search, in the run folder.
SEARCH, DESCRIPTION = "tuning", "search.json"
#: Folds, where the recipe does not say how many.
FOLDS = 5
#: How trials are measured: 2 since images are sorted by fold. Only trials that are measured alike compare.
MEASURED = 2
#: What a cross-validation on features leaves out.
LEFT_OUT = ("mixup", "cutmix", "clip_grad", "ema")


class TunedTrial(JsonModel):
    """A trial: settings and what they reach out of fold.

    Attributes:
        number: Optuna's number of it.
        settings: the value of each key that was chosen.
        accuracy: of its out-of-fold predictions.
        log_loss: of its out-of-fold predictions, in nats, without temperature scaling.
        score: what trials are compared by, higher being better.
    """

    number: NonNegative
    settings: dict[str, Value]
    accuracy: Proportion
    log_loss: float
    score: float

    def describe(self) -> str:
        """Returns the settings, such as ``head.dropout = 0.31, training.optimizer.lr = 0.0021``."""
        return ", ".join(
            f"{key} = {value:.3g}" if isinstance(value, float) else f"{key} = {value}"
            for key, value in self.settings.items()
        )


class Tuning(JsonModel):
    """The result of a search; the content of tuning.json.

    Attributes:
        schema_version: version of the file's format; ``schema`` in JSON.
        recipe: the recipe's name.
        phase: the phase that was tuned.
        folder: the folder with the tuned recipe.
        backbone: the backbone's name.
        logarithmic: the keys that were searched on a logarithmic scale.
        measure: what trials are compared by.
        images: number of images, each predicted out of fold.
        folds: number of folds.
        trials: the trials that ended, in their order.
        failed: number of trials whose training failed, such as with too high a learning rate.
        best: the number of the best trial.
        accuracy: the accuracy to expect of its settings, without the optimism of having been chosen; see
            `tlkit.analysis.selection_bias`.
        ci95: its 95% interval.
        range_test: a learning-rate range test of the best trial's settings, or None if its head fits itself.
    """

    schema_version: Literal[1] = Field(1, alias="schema")
    recipe: str
    phase: str
    folder: str
    backbone: str
    logarithmic: tuple[str, ...]
    measure: Monitor
    images: NonNegative
    folds: NonNegative
    trials: tuple[TunedTrial, ...]
    failed: NonNegative
    best: NonNegative
    accuracy: Proportion
    ci95: tuple[Proportion, Proportion]
    range_test: RangeTest | None

    @property
    def keys(self) -> list[str]:
        """The keys that were chosen."""
        return list(dict.fromkeys(key for trial in self.trials for key in trial.settings))

    @property
    def best_trial(self) -> TunedTrial:
        """The trial whose settings are chosen."""
        return next(trial for trial in self.trials if trial.number == self.best)

    def sentences(self) -> list[str]:
        """Describes the best trial and the accuracy to expect, in sentences."""
        best, (low, high) = self.best_trial, self.ci95
        measure = {"loss": "log loss", "accuracy": "accuracy"}.get(self.measure, "balanced accuracy")
        failed = f" ({self.failed} more failed)" if self.failed else ""
        return [
            f"Of {len(self.trials)} trials{failed}, number {best.number} has the best {measure} out of fold: "
            f"{best.describe()}.",
            f"Expect an accuracy of {self.accuracy:.3f} ({low:.3f}–{high:.3f}). Its accuracy out of fold, "
            f"{best.accuracy:.3f} on {self.images:,} images in {self.folds} folds, is that of the best of "
            "many, and therefore too good.",
        ]


def read_tuning(folder: Path) -> Tuning | None:
    """Reads a folder's tuning.json; returns None if there is none.

    Raises:
        ReportError: it cannot be read.
    """
    file = folder / FILE
    return read_json(file, Tuning, ReportError) if file.is_file() else None


def tune(
    recipe: Recipe | Path | str,
    *,
    space: Mapping[str, Any] | Sequence[str],
    trials: int = 100,
    phase: str | None = None,
    overrides: Mapping[str, Any] | Sequence[str] = (),
    out: Path | str | None = None,
    device: str | None = None,
    observer: Observer | None = None,
    registry: Registry | None = None,
) -> Tuning:
    """Chooses settings of a phase's head and training, by cross-validation on cached features.

    The folds are the recipe's or, without, five of its training and validation images; test images are not
    looked at. The folder holds what was tried, so that the same call goes on where it stopped or, with more
    trials, tries more; when the search has ended it holds the tuned recipe, too.

    Args:
        recipe: a recipe, its file, or a folder that holds ``recipe.toml``.
        space: what to choose from: ``{"head.dropout": "0:0.8", "training.optimizer.lr": "1e-5:1e-2:log",
            "head.name": ["linear", "probe"]}``, or strings such as ``"head.dropout=0:0.8"``.
        trials: number of settings to try.
        phase: the phase to tune, in which the whole backbone is frozen; the last such one unless given.
        overrides: keys to set in a recipe that is read from a file.
        out: the folder; ``runs/<name>/tuned`` unless given.
        device: to compute features on, such as "cpu" or "cuda:1"; the best one unless given.
        observer: is shown the progress.
        registry: the parts to choose from; all that is installed unless given.

    Raises:
        TlkitError: the recipe, the space or the images must be corrected first.
    """
    if find_spec("optuna") is None:
        raise RecipeError(["optuna is not installed: pip install 'tlkit[tune]'"], recipe="tune")
    recipe, choices = as_recipe(recipe, overrides), read_space(space)
    require_one_label(recipe, "tlkit tune")
    observer, registry = observer or Observer(), registry or load_registry()
    if not recipe.phases:
        raise RecipeError(recipe.flaws or ["phase: there is none to tune"], recipe=recipe.label)
    tuned = _phase_to_tune(recipe, phase)
    dataset = prepare_experiment(recipe, [tuned], registry, choose_device(device), observer).dataset
    encoder = Encoder(
        tuned.backbone,
        registry,
        mirror=tuned.training.mirror,
        device=device,
        recipe=recipe,
        preprocess=tuned.preprocess,
    )
    search = _search_space(recipe, tuned, choices, encoder, dataset, registry)
    folder = Path(out) if out is not None else Path("runs") / recipe.name / "tuned"
    with _open_search(folder, recipe, tuned, choices):
        data = _folded_features(recipe, dataset, encoder, observer)
        tried = Trials(folder / SEARCH, search, data, encoder.backbone, dataset.classes, registry)
        tried.run(trials, observer)
        tuning = _result(search, tried, data, folder)
        _write(tuning, search.tuned(tuning.best_trial.settings), folder)
    return tuning


def _search_space(
    recipe: Recipe,
    phase: Phase,
    choices: Mapping[str, Choice],
    encoder: Encoder,
    dataset: Dataset,
    registry: Registry,
) -> SearchSpace:
    """Returns what to search.

    Raises:
        RecipeError: the phase cannot be trained with one of the values.
    """
    heads = choices[HEAD_NAME].values if HEAD_NAME in choices else ()
    fits = _self_fitting([phase.head.name, *map(str, heads)], encoder, dataset, registry)
    space = SearchSpace(recipe, phase, choices, registry, fits)
    if problems := _space_problems(space, registry):
        raise RecipeError(problems, recipe="tune")
    return space


def _phase_to_tune(recipe: Recipe, name: str | None) -> Phase:
    """Returns the phase of that name, or the last one that can be tuned.

    Raises:
        RecipeError: it cannot be tuned.
    """
    phases = recipe.phases if name is None else (recipe.phase(name),)
    for phase in reversed(phases):
        if not _unsearchable(phase):
            return phase
    raise RecipeError([problem for phase in phases for problem in _unsearchable(phase)], recipe=recipe.label)


def _unsearchable(phase: Phase) -> list[str]:
    """Returns why a phase cannot be tuned on cached features."""
    key, problems = f"phase.{phase.name}", []
    if phase.freeze.name != "backbone":
        problems.append(f"{key}.freeze: only the head can be tuned on cached features: name another phase")
    if phase.start_from is not None:
        problems.append(f"{key}.start_from: a phase that starts from another one cannot be tuned")
    if phase.augmentation.name != "none":
        problems.append(f"{key}.augmentation: heads are tuned on plain images: leave it out")
    problems += [
        f"{key}.{name}: has no effect on features that are searched: leave it out"
        for name in LEFT_OUT
        if getattr(phase.training, name)
    ]
    return problems


def _self_fitting(names: Sequence[str], encoder: Encoder, dataset: Dataset, registry: Registry) -> set[str]:
    """Returns the heads among those named that fit themselves."""
    fits = set()
    for name in dict.fromkeys(names):
        if not registry.problems("head", name, {}):
            head = registry.make("head", name, {}, encoder.backbone, dataset.classes)
            fits |= {name} if isinstance(head, SelfFittingHead) else set()
    return fits


def _space_problems(space: SearchSpace, registry: Registry) -> list[str]:
    """Returns what is wrong with the values in the space, each tried once."""
    problems = []
    for settings in space.extremes():
        tuned = space.tuned(settings)
        written = ", ".join(f"{key}={value}" for key, value in settings.items())
        problems += [f"--space {written}: {problem}" for problem in recipe_problems(tuned, registry)]
    return list(dict.fromkeys(problems))


def _folded_features(
    recipe: Recipe, dataset: Dataset, encoder: Encoder, observer: Observer
) -> FoldedFeatures:
    images = (*dataset.splits.train, *dataset.splits.val)
    folds = dataset.folds or draw_folds(images, dataset.classes, seed=recipe.seed, folds=FOLDS)
    order = np.argsort(folds.assignment[0], kind="stable")
    images = tuple(images[index] for index in order)
    return FoldedFeatures(
        views=tuple(encoder.encode(images, observer)),
        labels=dataset.labels_of(images),
        folds=folds.assignment[0][order],
        count=folds.count,
        classes=len(dataset.classes),
        seed=recipe.seed,
    )


def _open_search(folder: Path, recipe: Recipe, phase: Phase, choices: Mapping[str, Choice]) -> FileLock:
    """Opens a folder for a search, for this process alone; one that holds this very search goes on.

    Raises:
        RunFolderError: it holds something else, or another process uses it.
    """
    content = [recipe.to_toml(), phase.name, [repr(choice) for choice in choices.values()], MEASURED]
    own = json.dumps(content, indent=1)
    file = folder / SEARCH / DESCRIPTION
    try:
        if (folder / "run.json").is_file() or (
            folder.is_dir() and any(folder.iterdir()) and not (folder / SEARCH).is_dir()
        ):
            raise RunFolderError(f"{folder} contains something other than a search: name another --out")
        file.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / SEARCH / ".lock", timeout=0)
        lock.acquire()
        if not file.is_file():
            with atomic_write(file) as temporary:
                temporary.write_text(own, encoding="utf-8")
        elif read_text(file, RunFolderError) != own:
            lock.release()
            raise RunFolderError(
                f"{folder} holds a search of another recipe or space, or of another version of tlkit: "
                "name another --out, or remove it"
            )
    except Timeout as error:
        raise RunFolderError(f"{folder} is in use by another tlkit: wait until it has ended") from error
    except OSError as error:
        raise RunFolderError(f"{folder} cannot be written: {error.strerror or error}") from error
    return lock


def _write(tuning: Tuning, tuned: Recipe, folder: Path) -> None:
    """Writes the tuned recipe and tuning.json, in place of those of fewer trials."""
    try:
        with atomic_write(folder / "recipe.toml") as temporary:
            temporary.write_text(tuned.to_toml(), encoding="utf-8")
        write_json(folder / FILE, tuning)
    except OSError as error:
        raise RunFolderError(f"{folder} cannot be written: {error.strerror or error}") from error


def _result(space: SearchSpace, tried: Trials, data: FoldedFeatures, folder: Path) -> Tuning:
    """Returns what came of the trials."""
    outcomes = tried.outcomes()
    best, accuracy = tried.choose(outcomes)
    interval = wilson(accuracy, independent_images(int((data.folds >= 0).sum())))
    return Tuning(
        recipe=space.recipe.name,
        phase=space.phase.name,
        folder=str(folder),
        backbone=space.phase.backbone.name,
        logarithmic=space.logarithmic,
        measure=space.phase.training.monitor,
        images=int((data.folds >= 0).sum()),
        folds=data.count,
        trials=tuple(
            TunedTrial(
                number=outcome.number,
                settings=outcome.settings,
                accuracy=float(outcome.correct.mean()),
                log_loss=float(outcome.losses.mean()),
                score=float(score),
            )
            for outcome, score in zip(outcomes, tried.mean_scores(outcomes), strict=True)
        ),
        failed=tried.failed,
        best=outcomes[best].number,
        accuracy=accuracy,
        ci95=interval,
        range_test=tried.range_test(outcomes[best].settings),
    )
