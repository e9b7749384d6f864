"""Runs a recipe: from the recipe to a run folder. The whole flow is in `run`."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tlkit.data.dataset import Dataset
from tlkit.errors import RecipeError, RunFolderError, TlkitError
from tlkit.evaluation.significance import mcnemar
from tlkit.experiment.cached_features import read_cached_features
from tlkit.experiment.computing import computing_on
from tlkit.experiment.estimate import Estimate, estimate_phase
from tlkit.experiment.fold_files import remove_folds
from tlkit.experiment.frozen_pass import FrozenPass
from tlkit.experiment.log import PhaseEnded, PhaseStarted, PluginFailed, RunEnded
from tlkit.experiment.observer import Events, Observer, Run
from tlkit.experiment.phase import run_phase, write_phase
from tlkit.experiment.phase_context import PhaseContext, SkipRule
from tlkit.experiment.plan import Plan
from tlkit.experiment.planning import (
    describe_plan,
    features_known_beforehand,
    prepare_phases,
    resolve_auto_views,
)
from tlkit.experiment.prepared_phase import PreparedPhase
from tlkit.experiment.results import Results, Versus
from tlkit.experiment.run_folder import RunFolder
from tlkit.experiment.run_lock import next_folders, open_run_folder
from tlkit.experiment.sources import make_source, read_images
from tlkit.experiment.tracking import tracking_problems
from tlkit.experiment.validation import phase_problems, recipe_problems, source_problems
from tlkit.experiment.worker_pass import make_engine
from tlkit.feature_store.store import FeatureStore, cache_limit
from tlkit.parts.source import Source
from tlkit.plugins.loader import load_registry
from tlkit.plugins.registry import Registry
from tlkit.recipe.recipe import Phase, Recipe, as_recipe
from tlkit.runtime.devices import choose_device
from tlkit.runtime.distributed import process_state
from tlkit.runtime.process import keep_freed_memory
from tlkit.training.checkpoint import remove_checkpoint
from tlkit.utils.sequences import as_list


def run(
    recipe: Recipe | Path | str,
    *,
    overrides: Mapping[str, Any] | Sequence[str] = (),
    out: Path | str | None = None,
    phases: str | Sequence[str] = (),
    device: str | None = None,
    observer: Observer | None = None,
    registry: Registry | None = None,
    plan_only: bool = False,
    skip: SkipRule = lambda _phase, _results: None,
    time_limit: float | None = None,
) -> Run:
    """Runs a recipe, or resumes a run that was interrupted.

    Args:
        recipe: a recipe, its file, or a folder that holds ``recipe.toml``.
        overrides: keys to set in a recipe that is read from a file, as ``{"phase.fine-tune.epochs": 5}`` or
            ``["phase.fine-tune.epochs=5"]``.
        out: the run folder; ``runs/<name>/<number>`` unless given.
        phases: names of the phases to run; all unless given.
        device: such as "cpu" or "cuda:1"; the best one unless given.
        observer: watches the run.
        registry: the parts to choose from; all that is installed unless given.
        plan_only: stop after planning; there is no run folder then.
        skip: why a phase that starts from another one is not worth trying after the results so far, or None;
            its weights are then those that it starts from.
        time_limit: seconds after which no such phase is tried any more; nor is one that would take longer
            than what is left of them.

    Returns:
        The run with its folder and results.

    Raises:
        TlkitError: something in the recipe, the data or the machine must be corrected first.
    """
    deadline = None if time_limit is None else time.monotonic() + time_limit
    recipe = as_recipe(recipe, overrides)
    observer, registry = observer or Observer(), registry or load_registry()
    requested = [recipe.phase(name) for name in as_list(phases)]
    chosen = [phase for phase in recipe.phases if not requested or phase in requested]
    torch_device = choose_device(device)
    keep_freed_memory()
    named = Path(out) if out is not None else None
    with computing_on(torch_device), ExitStack() as opened:
        if plan_only:
            path = named or next(next_folders(recipe))
            experiment = prepare_experiment(recipe, chosen, registry, torch_device, observer)
            store = opened.enter_context(FeatureStore())
            results = Results.empty(recipe, experiment.plan, experiment.dataset)
            return _planned(recipe, path, experiment, results, store, skip)
        if named is not None and (finished := _finished(recipe, chosen, RunFolder(named))):
            return Run(recipe, named, finished)  # the folder may be read-only
        folder = opened.enter_context(open_run_folder(recipe, named))
        events = Events(registry, observer, partial(_log_failure, folder))
        opened.callback(events.trackers.close)
        earlier = folder.resume(recipe)
        experiment = prepare_experiment(recipe, chosen, registry, torch_device, observer)
        results = earlier or Results.empty(recipe, experiment.plan, experiment.dataset)
        store = opened.enter_context(FeatureStore())
        started = _planned(recipe, folder.path, experiment, results, store, skip)
        dataset, before = experiment.dataset, folder.events()
        frozen_pass = FrozenPass(dataset, store, observer, folder)
        context = PhaseContext(
            started, dataset, folder, frozen_pass, events, observer, registry, skip, deadline, before
        )
        _begin(experiment, started, folder)
        _execute(experiment, context)
        _finish(experiment, context)
        if process_state().is_main_process:
            started.features = read_cached_features(experiment.phases, dataset, store)
        started.estimates = dict  # the networks need not stay in memory with the run
    return started


def _planned(
    recipe: Recipe,
    folder: Path,
    experiment: Experiment,
    results: Results,
    store: FeatureStore,
    skip: SkipRule,
) -> Run:
    """Returns a run as it is before its first phase; its estimates are of phases that are likely to train."""
    todo = _unfinished(experiment, results)
    worth_trying = [item for item in todo if not item.phase.start_from or not skip(item.phase, results)]
    estimates = partial(_estimate, worth_trying, experiment.dataset, store)
    return Run(recipe, folder, results, experiment.plan, estimates)


def _unfinished(experiment: Experiment, results: Results) -> list[PreparedPhase]:
    """Returns the phases that have no results yet."""
    return [prepared for prepared in experiment.phases if not results.phase(prepared.phase.name)]


def _finished(recipe: Recipe, chosen: Sequence[Phase], folder: RunFolder) -> Results | None:
    """Returns the results of a run of which no chosen phase is missing, nor its end; None otherwise."""
    results = folder.resume(recipe)
    if results is None or not all(results.phase(phase.name) for phase in chosen):
        return None
    # a run may have been interrupted between its last phase and its end
    is_complete = len(results.phases) == len(recipe.phases)
    return None if is_complete and not folder.is_finished() else results


@dataclass(frozen=True)
class Experiment:
    """A recipe that is ready to run.

    Attributes:
        dataset: its images.
        phases: the chosen phases with their networks, in order.
        plan: what they are going to do.
    """

    dataset: Dataset
    phases: list[PreparedPhase]
    plan: Plan


def prepare_experiment(
    recipe: Recipe, phases: Sequence[Phase], registry: Registry, device: torch.device, observer: Observer
) -> Experiment:
    """Checks a recipe, prepares its phases, reads its images and plans.

    Raises:
        RecipeError: everything that is wrong with the recipe.
        DataError: the images cannot be used.
    """
    source, prepared = _check(recipe, phases, registry, device)
    dataset = read_images(source, recipe, observer)
    count, limit = len(dataset.splits.train), cache_limit()
    prepared = [resolve_auto_views(item, recipe, registry, count, limit) for item in prepared]
    plan = describe_plan(recipe, dataset, prepared, device)
    for warning in (plan.data.describe_small_classes(), plan.data.describe_missing_classes()):
        if warning:
            observer.note(warning)
    return Experiment(dataset, prepared, plan)


def _check(
    recipe: Recipe, phases: Sequence[Phase], registry: Registry, device: torch.device
) -> tuple[Source, list[PreparedPhase]]:
    """Checks everything that can be checked before images are read, and reports all problems at once."""
    problems = [*recipe_problems(recipe, registry), *tracking_problems(recipe.trackers)]
    source: Source | None = None
    if recipe.data is not None and not source_problems(recipe, registry):
        try:
            source = make_source(recipe.data, registry, recipe.task)
        except TlkitError as error:
            problems.append(f"data: {error}")
        else:
            if not source and source.downloads:
                problems.append(
                    f"data.root: the images are not in {recipe.data.root} yet: get them with "
                    f"`tlkit fetch {recipe.path or 'RECIPE'}` (and the same --set, if any), or point it "
                    "at yours with --set data.root=PATH"
                )
    sound = [phase for phase in phases if not phase_problems(recipe, phase, registry)]
    prepared: list[PreparedPhase] = []
    try:
        prepared = prepare_phases(recipe, sound, source.classes if source else None, registry, device)
    except RecipeError as error:
        problems += error.problems
    if problems or source is None:
        raise RecipeError(problems, recipe=recipe.label)
    return source, prepared


def _estimate(phases: Sequence[PreparedPhase], dataset: Dataset, store: FeatureStore) -> dict[str, Estimate]:
    """Estimates how long each phase that trains will take."""
    images = dataset.splits.train
    return {item.phase.name: estimate_phase(item, images, store) for item in phases if item.trains}


def _begin(experiment: Experiment, run: Run, folder: RunFolder) -> None:
    """Checks that every phase has what it starts from, and writes what is known before the first phase."""
    names = {prepared.phase.name for prepared in experiment.phases}
    for prepared in experiment.phases:
        start = prepared.phase.start_from
        if start is not None and start not in names and not run.results.phase(start):
            raise RunFolderError(
                f"phase {prepared.phase.name!r} starts from {start!r}, which {folder.path} does not hold: "
                f"run it first, with --phase {start} --out {folder.path}"
            )
    process_state().wait_for_everyone()  # until all processes have read the earlier results
    folder.prepare(run.recipe)
    folder.record_plan(experiment.plan)
    folder.record_splits(experiment.dataset)
    folder.describe(run.recipe, experiment.plan.device, finished=False)


def _log_failure(folder: RunFolder, hook: str, problem: str) -> None:
    folder.log(PluginFailed(hook=hook, problem=problem))


def _execute(experiment: Experiment, context: PhaseContext) -> None:
    """Runs the phases that have no results yet, one after the other; each result is written at once."""
    run, folder, events = context.run, context.folder, context.events
    todo = _unfinished(experiment, run.results)
    events.notify("tlkit_run_started", run=run)
    beforehand = without_training(experiment, todo, run.recipe)
    context.frozen_pass.run(beforehand, make_engine(run.recipe, context.registry))
    for prepared in todo:
        name = prepared.phase.name
        run.stopping = None
        events.notify("tlkit_phase_started", run=run, phase=prepared.phase)
        folder.log(PhaseStarted(phase=name))
        outcome = run_phase(prepared, context)
        write_phase(prepared, outcome, context)
        result = outcome.result.model_copy(update={"versus": _versus(run, folder, name)})
        run.results = run.results.with_phase(result)
        folder.write_results(run.results)
        if folder.writes:
            remove_checkpoint(folder.checkpoint(name))
        folder.log(PhaseEnded(phase=name))
        events.notify("tlkit_phase_ended", run=run, phase=prepared.phase, result=result)


def without_training(
    experiment: Experiment, phases: Sequence[PreparedPhase], recipe: Recipe
) -> list[PreparedPhase]:
    """Returns the phases whose features one pass computes before anything is trained."""
    by_name = {prepared.phase.name: prepared for prepared in experiment.phases}
    beforehand = [prepared for prepared in phases if features_known_beforehand(prepared, recipe, by_name)]
    # in a cross-validation, a phase that starts from another one may not be worth trying
    return [
        prepared for prepared in beforehand if not (experiment.dataset.folds and prepared.phase.start_from)
    ]


def _finish(experiment: Experiment, context: PhaseContext) -> None:
    """Sorts the phases by the recipe, and decides whether the goal is met."""
    run, folder = context.run, context.folder
    order = [phase.name for phase in run.recipe.phases]
    phases = sorted(run.results.phases, key=lambda result: order.index(result.name))
    # phases may have been run one by one, in another order
    phases = [result.model_copy(update={"versus": _versus(run, folder, result.name)}) for result in phases]
    complete, goal_met = len(phases) == len(order), None
    if run.recipe.goal is not None and complete:
        goal_met = phases[-1].headline >= run.recipe.goal
    run.results = run.results.model_copy(update={"phases": tuple(phases), "goal_met": goal_met})
    folder.write_results(run.results)
    folder.describe(run.recipe, experiment.plan.device, finished=complete)
    if complete and folder.writes:
        for name in order:
            remove_folds(folder.folds(name))
    folder.log(RunEnded(goal_met=goal_met))
    context.events.notify("tlkit_run_ended", run=run)


def _versus(run: Run, folder: RunFolder, name: str) -> tuple[Versus, ...]:
    """Compares a phase with the one before and with the first, on the same test or out-of-fold images.

    McNemar's test needs answers that are right or wrong: with several labels per image, none is compared.
    """
    if run.recipe.task == "multilabel":
        return ()
    order, classes = [phase.name for phase in run.recipe.phases], run.results.classes
    part = "test" if run.results.data.test else "out-of-fold"
    earlier = [other for other in order[: order.index(name)] if run.results.phase(other)]
    correct = folder.correct(name, part, classes) if earlier else {}
    comparisons = []
    for other in dict.fromkeys([*earlier[-1:], *earlier[:1]]):
        before = folder.correct(other, part, classes)
        if part == "test" and before.keys() != correct.keys():
            image = min(before.keys() ^ correct.keys())
            path = folder.phase(other) / "predictions.csv"
            raise RunFolderError(f"{path} cannot be read: {image!r} is not a test image of both phases")
        both = before.keys() & correct.keys()  # a phase may have been given up after some folds
        pairs = np.array([(before[image], correct[image]) for image in sorted(both)], dtype=bool)
        pairs = pairs.reshape(-1, 2)
        test = mcnemar(pairs[:, 0], pairs[:, 1])
        comparisons.append(Versus(phase=other, gained=test.gained, lost=test.lost, p=test.p))
    return tuple(comparisons)
