"""From a recipe to a run folder: the only place that knows the whole flow."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tlkit.components import Source
from tlkit.data.feed import Feed
from tlkit.data.images import Image
from tlkit.data.making import make, not_yet_made
from tlkit.data.pixels import Pixels
from tlkit.data.reading import read_images
from tlkit.data.splits import Splits
from tlkit.devices import choose_device, from_first, processes, tensor_float32
from tlkit.errors import RecipeError, RunFolderError, TlkitError
from tlkit.estimating import Estimate, estimate
from tlkit.evaluation.calibration import fit_temperature, probabilities
from tlkit.evaluation.comparison import mcnemar
from tlkit.evaluation.metrics import evaluate, summary
from tlkit.features.extraction import Owner, extract, plan
from tlkit.features.store import FeatureStore, cache_limit
from tlkit.model_folder import load_state, read_state, save_model
from tlkit.observer import Observer, Run
from tlkit.phase_run import feature_summary, labels, logits, make_feeds, make_lesson
from tlkit.planning import (
    Plan,
    Prepared,
    describe,
    find_source,
    known_beforehand,
    parameters,
    prepare,
    settle,
)
from tlkit.plugins import Registry, load_registry
from tlkit.recipe import Recipe, draft_recipe
from tlkit.run_folder import RunFolder, empty_results, next_folder
from tlkit.training.loop import History, train
from tlkit.training.resuming import clear_progress


def run(
    recipe: Recipe | Path | str,
    *,
    set: Mapping[str, Any] | Sequence[str] = (),
    out: Path | str | None = None,
    phases: Sequence[str] = (),
    device: str | None = None,
    observer: Observer | None = None,
    registry: Registry | None = None,
    plan_only: bool = False,
) -> Run:
    """Runs a recipe, or goes on with a run that was cut short.

    Args:
        recipe: a recipe, its file, or a folder that holds ``recipe.toml``.
        set: keys to change, as ``{"phase.fine-tune.epochs": 5}`` or ``["phase.fine-tune.epochs=5"]``.
        out: the run folder; ``runs/<name>/<number>`` unless given.
        phases: names of the phases to run; all unless given.
        device: such as "cpu" or "cuda:1"; the best there is unless given.
        observer: watches the run.
        registry: the parts to choose from; all that is installed unless given.
        plan_only: stop after the plan; there is no run folder then.

    Returns:
        The run with its folder and results.

    Raises:
        TlkitError: something in the recipe, the data or the machine must be mended first.
    """
    if not isinstance(recipe, Recipe):
        recipe = draft_recipe(Path(recipe), set)
    folder = RunFolder(Path(out) if out is not None else next_folder(recipe))
    execution = _Execution(
        recipe, folder, phases, observer or Observer(), registry or load_registry(), device
    )
    with tensor_float32(execution.device):
        return execution.run(plan_only)


class _Execution:
    """The state of one execution, and its steps in order."""

    def __init__(
        self,
        recipe: Recipe,
        folder: RunFolder,
        phases: Sequence[str],
        observer: Observer,
        registry: Registry,
        device: str | None,
    ) -> None:
        self.recipe = recipe
        self.folder = folder
        self.observer = observer
        self.registry = registry
        self.device = choose_device(device)
        self.phases = [recipe.phase(name) for name in phases] if phases else list(recipe.phases)
        self.phases.sort(key=recipe.phases.index)
        self.store = FeatureStore()
        self.pixels = Pixels()
        self.feature_seconds: dict[str, float] = {}
        self.computed: dict[Owner, int] = {}

    def run(self, plan_only: bool) -> Run:
        """Everything from the recipe to the results."""
        run = Run(self.recipe, self.folder.path)
        done = None if plan_only else self._done()
        if done is not None and all(phase.name in done for phase in self.phases):
            run.results = self.folder.results() or {}
            return run
        source, prepared = self._prepare()
        assert self.recipe.data is not None  # _prepare has seen to it
        together = processes()
        missing = not_yet_made(source)[together.process_index :: together.num_processes]
        if missing:
            with self.observer.working("making images", len(missing), "images") as tick:
                make(source, missing, tick)
        together.wait_for_everyone()
        with self.observer.working("reading images", len(source), "images") as tick:
            found = read_images(source, self.recipe.data, self.recipe.seed, tick)
        splits, unlabelled, rejected = found.splits, found.unlabelled, found.rejected
        count, limit = len(splits.train), cache_limit()
        prepared = [settle(item, self.recipe, self.registry, count, limit) for item in prepared]
        counts = {name: len(getattr(splits, name)) for name in ("train", "val", "test")}
        run.plan = Plan(
            self.recipe.name,
            source.classes,
            {**counts, "unlabelled": len(unlabelled)},
            rejected,
            tuple(describe(item, splits) for item in prepared),
            str(self.device),
            source.about,
        )
        self.observer.planned(run.plan)
        todo = [item for item in prepared if item.phase.name not in (done or {})]
        self.observer.estimating(lambda: self._estimates(todo, splits))
        if plan_only:
            return run
        self._check_starts(done or {})
        processes().wait_for_everyone()  # until all have seen what was there before
        self.folder.prepare(self.recipe)
        self.folder.record_plan(run.plan)
        self.folder.record_splits(splits, unlabelled, source.classes)
        run.results = self.folder.results() or empty_results(self.recipe, run.plan)
        self.folder.describe(self.recipe, str(self.device), finished=False)
        self._notify("tlkit_run_started", run=run)
        self._frozen_pass(todo, prepared, splits, unlabelled)
        for item in todo:
            self._phase(run, item, splits, unlabelled)
        self._finish(run)
        return run

    def _done(self) -> dict[str, Any] | None:
        """The results of phases that an earlier execution of this run has finished."""
        if not (self.folder.path / "recipe.toml").is_file():
            return None
        self.folder.prepare(self.recipe)
        results = self.folder.results()
        return {result["name"]: result for result in results["phases"]} if results else None

    def _prepare(self) -> tuple[Source, list[Prepared]]:
        """Checks all that can be checked before images are read, and says everything at once."""
        recipe, registry = self.recipe, self.registry
        problems = recipe.problems(registry)
        source: Source | None = None
        if recipe.data is not None and not recipe.data_problems(registry):
            try:
                source = find_source(recipe.data, registry)
            except TlkitError as error:
                problems.append(f"data: {error}")
            else:
                if not source and source.downloads:
                    problems.append(
                        f"data.root: the images are not in {recipe.data.root} yet: get them with "
                        f"`tlkit fetch {recipe.path or 'RECIPE'}` (and the same --set, if any), or point it "
                        "at yours with --set data.root=PATH"
                    )
        sound = [phase for phase in self.phases if not recipe.phase_problems(phase, registry)]
        prepared: list[Prepared] = []
        try:
            prepared = prepare(recipe, sound, source.classes if source else None, registry, self.device)
        except RecipeError as error:
            problems += error.problems
        if problems or source is None:
            raise RecipeError(problems, recipe=str(recipe.path or recipe.name))
        return source, prepared

    def _estimates(self, todo: Sequence[Prepared], splits: Splits) -> dict[str, Estimate]:
        """What training will cost, for the phases that train."""
        return {item.phase.name: estimate(item, splits.train, self.store) for item in todo if item.trains}

    def _check_starts(self, done: Mapping[str, Any]) -> None:
        """A phase must find the one it starts from: among these, or finished in this folder."""
        coming = {phase.name for phase in self.phases}
        for phase in self.phases:
            start = phase.start_from
            if start is not None and start not in coming and start not in done:
                raise RunFolderError(
                    f"phase {phase.name!r} starts from {start!r}, which {self.folder.path} does not hold: "
                    f"run it first, with --phase {start} --out {self.folder.path}"
                )

    def _frozen_pass(
        self,
        todo: Sequence[Prepared],
        every: Sequence[Prepared],
        splits: Splits,
        unlabelled: tuple[Image, ...],
    ) -> None:
        """Makes, in one pass, all kept features whose networks are known before the first phase."""
        by_name = {item.phase.name: item for item in every}
        known = [item for item in todo if known_beforehand(item, self.recipe, by_name)]
        self._extract(known, splits, unlabelled)

    def _extract(self, items: Sequence[Prepared], splits: Splits, unlabelled: tuple[Image, ...]) -> None:
        """Computes what the store lacks of these phases' features; their seconds are shared out."""
        began = time.perf_counter()
        limit = cache_limit()
        for setting in dict.fromkeys(item.setting for item in items):
            requests = [
                request
                for item in items
                if item.setting == setting
                for request in item.requests(splits, unlabelled)
            ]
            jobs = plan(requests, self.store, setting)
            processes().wait_for_everyone()  # nobody writes before all have looked
            total = sum(len(job) for job in jobs)
            if not total:
                continue
            with self.observer.working("frozen pass", total, "images") as tick:
                computed = extract(jobs, self.store, setting, self.pixels, tick)
            took = time.perf_counter() - began
            views = {"/".join(owner): count for owner, count in computed.items()}
            self.folder.log("features", computed=views, seconds=round(took, 3))
            for owner, count in computed.items():
                self.computed[owner] = self.computed.get(owner, 0) + count
                share = took * count / total
                self.feature_seconds[owner[0]] = self.feature_seconds.get(owner[0], 0.0) + share
            began = time.perf_counter()
            if self.folder.writes:
                self.store.prune(limit, keep=self.store.used)

    def _phase(self, run: Run, item: Prepared, splits: Splits, unlabelled: tuple[Image, ...]) -> None:
        """One phase from its start to its entry in results.json."""
        name, began = item.phase.name, time.perf_counter()
        before = self.feature_seconds.get(name, 0.0)
        run.stopping = None
        self._notify("tlkit_phase_started", run=run, phase=item.phase)
        self.folder.log("phase_started", phase=name)
        if item.phase.start_from is not None:
            model = self.folder.model(item.phase.start_from)
            load_state(item.split.classifier, read_state(model), model)
            item.split.refresh()
            self._extract([item], splits, unlabelled)
        late = self.feature_seconds.get(name, 0.0)
        started = time.perf_counter()
        feeds = make_feeds(item, splits, unlabelled, self.store, self.pixels, self.recipe.seed)
        fed = time.perf_counter()
        history = self._train(run, item, feeds, splits)
        trained = time.perf_counter()
        result = self._evaluate(run, item, feeds, splits, unlabelled)
        ended = time.perf_counter()
        seconds = {
            "total": ended - began + before,
            "features": late + fed - started,
            "training": trained - fed,
            "evaluation": ended - trained,
        }
        entry = {
            "name": name,
            "epochs": len(history.rows),
            "best_epoch": history.best_epoch,
            "stopped": run.stopping,
            "parameters": parameters(item),
            "features": feature_summary(item, splits, self.computed),
            "seconds": {key: round(value, 3) for key, value in seconds.items()},
            **result,
            "versus": self._versus(run, name),
        }
        run.results["phases"].append(entry)
        self.folder.write_json("results.json", run.results)
        if self.folder.writes:
            clear_progress(self.folder.phase(name) / "resume")
        self.folder.log("phase_ended", phase=name)
        self._notify("tlkit_phase_ended", run=run, phase=item.phase, result=entry)
        self.observer.phase_ended(entry)

    def _train(self, run: Run, item: Prepared, feeds: Mapping[str, Feed], splits: Splits) -> History:
        """Trains the phase if anything in it learns, and keeps its history."""
        phase = item.phase

        def epoch_ended(row: dict[str, float]) -> bool:
            self.folder.log("epoch", phase=phase.name, **row)
            self.observer.epoch_ended(phase.name, row, phase.training.epochs)
            self._notify("tlkit_epoch_ended", run=run, phase=phase, epoch=int(row["epoch"]), metrics=row)
            run.stopping = from_first(run.stopping)
            return run.stopping is not None

        classes: list[str] = run.results["classes"]
        history = History()
        if item.trains:
            lesson = make_lesson(item, feeds, splits, len(classes), self.recipe.seed)
            resume = self.folder.phase(phase.name) / "resume"
            steps = phase.training.epochs * len(splits.train)
            with self.observer.working(f"training {phase.name}", steps, "images") as tick:
                history = train(item.split, lesson, phase.training, item.setting, resume, epoch_ended, tick)
            self.folder.write_history(phase.name, history.rows)
        return history

    def _evaluate(
        self,
        run: Run,
        item: Prepared,
        feeds: Mapping[str, Feed],
        splits: Splits,
        unlabelled: tuple[Image, ...],
    ) -> dict[str, Any]:
        """Predictions on validation, test and unlabelled images, what they are worth, and the model."""
        name, classes = item.phase.name, run.results["classes"]
        parts: list[tuple[str, Sequence[Image], Feed]] = [
            ("val", splits.val, feeds["val"]),
            ("test", splits.test, feeds["test"]),
        ]
        if unlabelled:
            parts.append(("unlabelled", unlabelled, feeds["unlabelled"]))
        total = sum(len(images) for _, images, _ in parts)
        with self.observer.working(f"evaluating {name}", total, "images") as tick:
            raw = {part: logits(item, feed, tick) for part, _, feed in parts}
        temperature = fit_temperature(raw["val"], labels(splits.val))
        found = {part: probabilities(values, temperature) for part, values in raw.items()}
        if self.folder.writes:
            backbone = item.phase.backbone
            save_model(
                self.folder.model(name),
                item.split.classifier,
                item.backbone,
                # its weights are in the folder; where they came from may not be where it goes
                backbone_table={**backbone.table(), **self.registry.without_weights(backbone.name)},
                head_table=item.phase.head.table(),
                classes=classes,
                calibration={"temperature": temperature, "reject_below": self.recipe.reject_below},
            )
        rows = [(part, images, found[part]) for part, images, _ in parts]
        self.folder.write_predictions(name, classes, rows)
        processes().wait_for_everyone()  # until the first has written the model and these
        return {
            "temperature": temperature,
            "val": summary(found["val"], labels(splits.val)),
            "test": evaluate(found["test"], labels(splits.test)),
        }

    def _versus(self, run: Run, name: str) -> list[dict[str, Any]]:
        """McNemar's test against the phase before and the first one, on the same test images."""
        order = [phase.name for phase in self.recipe.phases]
        done = {result["name"] for result in run.results["phases"]}
        names = [other for other in order[: order.index(name)] if other in done]
        now = self.folder.correct(name) if names else {}
        rows = []
        for other in dict.fromkeys([*names[-1:], *names[:1]]):
            before = self.folder.correct(other)
            pairs = np.array([(before[image], right) for image, right in now.items()], dtype=bool)
            rows.append({"phase": other, **mcnemar(pairs[:, 0], pairs[:, 1])})
        return rows

    def _finish(self, run: Run) -> None:
        """Puts the phases into the recipe's order, and says whether the goal is met."""
        order = [phase.name for phase in self.recipe.phases]
        run.results["phases"].sort(key=lambda result: order.index(result["name"]))
        for result in run.results["phases"]:
            # phases may have been run one by one, in another order
            result["versus"] = self._versus(run, result["name"])
        last = run.results["phases"][-1]
        complete = len(run.results["phases"]) == len(order)
        if self.recipe.goal is not None and complete:
            run.results["goal_met"] = bool(last["test"]["accuracy"] >= self.recipe.goal)
        self.folder.write_json("results.json", run.results)
        self.folder.describe(self.recipe, str(self.device), finished=complete)
        self.folder.log("run_ended", goal_met=run.results["goal_met"])
        self._notify("tlkit_run_ended", run=run)

    def _notify(self, hook: str, **values: Any) -> None:
        if not processes().is_main_process:
            return
        for problem in self.registry.notify(hook, **values):
            self.observer.note(problem)
            self.folder.log("plugin_failed", hook=hook, problem=problem)
