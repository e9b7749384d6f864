"""Sends a run to experiment trackers (TensorBoard, MLflow, Weights & Biases), through accelerate's."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from tlkit.errors import RunFolderError
from tlkit.evaluation.multilabel import Estimate, MultilabelScores
from tlkit.experiment.results import PhaseResult
from tlkit.plugins.hookspecs import hookimpl
from tlkit.plugins.registry import describe_exception
from tlkit.recipe.reader import plain
from tlkit.recipe.recipe import Phase, Recipe
from tlkit.recipe.schema import Tracker, flatten, to_toml_value
from tlkit.training.history import EpochMetrics
from tlkit.utils.json_files import JsonModel, read_json, write_json

if TYPE_CHECKING:
    from accelerate.tracking import GeneralTracker, MLflowTracker, WandBTracker

    from tlkit.experiment.observer import Run

#: What a tracker imports.
PACKAGES: dict[Tracker, tuple[str, ...]] = {
    "tensorboard": ("tensorboard",),
    "mlflow": ("mlflow", "sqlalchemy", "alembic"),
    "wandb": ("wandb",),
}
FILE = "tracking.json"
#: Is told which tracker failed, and why.
Fail = Callable[[str, str], object]


class TrackedRun(JsonModel):
    """What a run is called in its trackers; the content of tracking.json.

    Attributes:
        schema_version: version of the file's format; ``schema`` in JSON.
        ids: the run's id in each tracker.
    """

    schema_version: Literal[1] = Field(1, alias="schema")
    ids: dict[Tracker, str]


def tracking_problems(trackers: Iterable[Tracker], key: str = "track.with") -> list[str]:
    """Returns which packages are missing that trackers need, beginning with the key that names them."""
    return [
        f"{key}: {', '.join(missing)} missing: pip install 'tlkit[{name}]'"
        for name in trackers
        if (missing := [package for package in PACKAGES[name] if find_spec(package) is None])
    ]


class Trackers:
    """Sends the events of a run to its recipe's trackers.

    A tracker that fails is not called again, and the run goes on. A run that resumes goes on in the trackers,
    too, by the ids in tracking.json.
    """

    def __init__(self, fail: Fail) -> None:
        """Takes a function that is called with the name of a tracker that fails, and the problem."""
        self._fail = fail
        self._started: dict[Tracker, Any] = {}

    @hookimpl
    def tlkit_run_started(self, run: Run) -> None:
        """Starts the trackers, and sends them the recipe's keys."""
        for name in run.recipe.trackers:
            self._attempt(name, partial(self._start, name, run))

    @hookimpl
    def tlkit_epoch_ended(self, phase: Phase, metrics: EpochMetrics) -> None:
        """Sends the epoch's row of history.csv."""
        row = {f"{phase.name}/{key}": value for key, value in asdict(metrics).items() if value is not None}
        self._log(row, metrics.epoch)

    @hookimpl
    def tlkit_phase_ended(self, result: PhaseResult) -> None:
        """Sends the phase's scores with their intervals."""
        self._log({f"{result.name}/{key}": value for key, value in _final_metrics(result)}, result.epochs)

    def close(self) -> None:
        """Ends what was started."""
        for name, tracker in list(self._started.items()):
            self._attempt(name, tracker.finish)

    def _start(self, name: Tracker, run: Run) -> None:
        ids = _read_ids(run.folder)
        self._started[name] = tracker = _open_tracker(name, run.recipe, run.folder, ids.get(name))
        if name not in ids:
            write_json(run.folder / FILE, TrackedRun(ids={**ids, name: _id_in(tracker)}))
            tracker.store_init_configuration(_parameters(run.recipe))

    def _log(self, values: Mapping[str, float], step: int) -> None:
        for name, tracker in list(self._started.items()):
            # Weights & Biases drops rows whose step is smaller than an earlier one: each phase begins at 1
            own_step = None if name == "wandb" else step
            self._attempt(name, partial(tracker.log, dict(values), step=own_step))

    def _attempt(self, name: Tracker, action: Callable[[], object]) -> None:
        """Calls a tracker; if it fails, says so and does not call it again."""
        try:
            action()
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # a library that calls sys.exit() must not end the run either
            self._fail(name, describe_exception(error))
            if tracker := self._started.pop(name, None):
                with suppress(Exception):
                    tracker.finish()


def track_report(recipe: Recipe, folder: Path, page: Path, fail: Fail) -> None:
    """Sends a run's report to those of its trackers that keep files: MLflow, and Weights & Biases."""
    for name in recipe.trackers:
        try:
            if name != "tensorboard" and (run_id := _read_ids(folder).get(name)):
                _send_report(_open_tracker(name, recipe, folder, run_id), page)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            fail(name, describe_exception(error))


def _send_report(tracker: MLflowTracker | WandBTracker, page: Path) -> None:
    from accelerate.tracking import MLflowTracker

    try:
        if isinstance(tracker, MLflowTracker):
            tracker.log_artifact(str(page))
        else:
            import wandb

            artifact = wandb.Artifact("report", type="report")
            artifact.add_file(str(page))
            tracker.tracker.log_artifact(artifact)
    finally:
        tracker.finish()


def _open_tracker(name: Tracker, recipe: Recipe, folder: Path, run_id: str | None) -> Any:
    """Starts accelerate's tracker of that name for a new run, or for the one with an id."""
    from accelerate.tracking import MLflowTracker, TensorBoardTracker, WandBTracker

    tracker: GeneralTracker
    if name == "tensorboard":
        tracker = TensorBoardTracker(name, folder)
    elif name == "mlflow":
        tracker = MLflowTracker(recipe.name, run_id=run_id, run_name=str(folder))
    else:
        tracker = WandBTracker(recipe.name, name=str(folder), dir=folder, id=run_id, resume="allow")
    tracker.start()
    return tracker


def _id_in(tracker: GeneralTracker) -> str:
    """Returns the run's id in a tracker; TensorBoard's is a folder in the run folder."""
    from accelerate.tracking import MLflowTracker, TensorBoardTracker

    if isinstance(tracker, TensorBoardTracker):
        return str(tracker.name)
    return str(tracker.tracker.info.run_id if isinstance(tracker, MLflowTracker) else tracker.tracker.id)


def _read_ids(folder: Path) -> Mapping[Tracker, str]:
    file = folder / FILE
    return read_json(file, TrackedRun, RunFolderError).ids if file.is_file() else {}


def _parameters(recipe: Recipe) -> dict[str, str | float]:
    """Returns the recipe's dotted keys and their values; lists are written as in TOML."""
    values = flatten({"seed": recipe.seed, **plain(recipe.tree)})
    return {
        key: value if isinstance(value, str | int | float) else to_toml_value(value) for key, value in values
    }


def _final_metrics(result: PhaseResult) -> Iterator[tuple[str, float]]:
    """Yields a phase's scores, and the ends of their intervals."""
    yield "seconds", result.seconds.total
    for part in ("val", "test", "out_of_fold"):
        scores = getattr(result, part)
        for key, value in scores.model_dump().items() if scores else ():
            if key.endswith("ci95"):
                yield f"{part}/{key}_low", value[0]
                yield f"{part}/{key}_high", value[1]
            elif isinstance(value, int | float):
                yield f"{part}/{key}", value
        labelled: MultilabelScores | None = getattr(result.multilabel, part, None)
        yield from _multilabel_metrics(part, labelled) if labelled else ()


def _multilabel_metrics(part: str, scores: MultilabelScores) -> Iterator[tuple[str, float]]:
    """Yields the scores of several labels per image, and the ends of their intervals."""
    yield f"{part}/n", scores.n
    yield f"{part}/log_loss", scores.log_loss
    for key in ("mean_average_precision", "macro_f1", "micro_f1"):
        estimate: Estimate = getattr(scores, key)
        yield f"{part}/{key}", estimate.value
        yield f"{part}/{key}_ci95_low", estimate.ci95[0]
        yield f"{part}/{key}_ci95_high", estimate.ci95[1]
