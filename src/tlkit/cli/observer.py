"""Shows a run on the console."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import tlkit
from tlkit.cli import console
from tlkit.cli.interrupts import Interrupted
from tlkit.cli.multilabel_text import with_interval
from tlkit.cli.plan_text import print_estimates, print_plan
from tlkit.cli.results_text import accuracy_with_interval
from tlkit.errors import RunFolderError
from tlkit.experiment.results import PhaseResult
from tlkit.experiment.run_folder import RunFolder
from tlkit.recipe.recipe import Phase
from tlkit.recipe.schema import Monitor
from tlkit.runtime.distributed import process_state
from tlkit.training.history import EpochMetrics
from tlkit.utils.formatting import plural


class ConsoleObserver(tlkit.Observer):
    """Prints a run's plan and estimates, its progress, and the scores of each epoch and phase.

    Attributes:
        folder: the run folder; None before the run has started.
    """

    def __init__(self) -> None:
        self.folder: Path | None = None

    @tlkit.hookimpl
    def tlkit_run_started(self, run: tlkit.Run) -> None:
        """Prints the plan, how long the phases will train, and what an interrupted run has done already."""
        self.folder = run.folder
        print_run_plan(run)
        if done := _done_before(run):
            console.say(f"{run.folder} resumes: {'; '.join(done)}", stderr=True, hanging=2)

    @tlkit.hookimpl
    def tlkit_epoch_ended(self, phase: Phase, epoch: int, metrics: EpochMetrics) -> None:
        """Prints the epoch's metrics."""
        console.say(
            f"{phase.name} {epoch}/{phase.training.epochs}: loss {metrics.train_loss:.4f}, "
            f"{_describe_validation(metrics, phase.training.monitor)}{metrics.seconds:.1f} s",
            stderr=True,
            hanging=2,
        )

    @tlkit.hookimpl
    def tlkit_phase_ended(self, result: PhaseResult) -> None:
        """Prints the phase's accuracy or mean average precision, or why its weights were not taken."""
        if result.decision is not None and not result.is_taken:
            console.say(f"{result.name}: {result.decision.describe()}", hanging=2)
            return
        if result.multilabel is not None:
            score = with_interval(result.multilabel.measured.mean_average_precision)
            score = f"mean average precision {score}"
        else:
            score = accuracy_with_interval(result.measured)
        console.say(f"{result.name}: {score} on {result.describe_measurement()}")

    @contextmanager
    def progress(self, task: str, total: int, unit: str, done: int = 0) -> Iterator[console.Tick]:
        """Shows a task as `console.progress` does."""
        with console.progress(task, total, unit, done) as tick:
            yield tick

    def note(self, text: str) -> None:
        """Prints a warning."""
        console.say(text, style="yellow", stderr=True)


def print_run_plan(run: tlkit.Run) -> None:
    """Prints a run's plan, and how long its phases will train."""
    if run.plan is not None:
        print_plan(run.plan)
        print_estimates(run.estimates(), run.plan.data.folds)


@contextmanager
def watching() -> Iterator[tlkit.Observer]:
    """Shows a run in the main process, and says how it goes on if Ctrl-C ends it.

    Yields:
        The run's observer; that of other processes shows nothing.

    Raises:
        Interrupted: Ctrl-C was pressed.
    """
    if not process_state().is_main_process:
        yield tlkit.Observer()
        return
    observer = ConsoleObserver()
    try:
        yield observer
    except KeyboardInterrupt:
        text = "interrupted: start the same command again"
        if observer.folder is not None:
            out = shlex.quote(str(observer.folder))
            text += f" with --out {out} to go on; finished phases are kept"
        raise Interrupted(text) from None


def _done_before(run: tlkit.Run) -> list[str]:
    """Describes the phases that an earlier execution of the run has finished or begun."""
    from tlkit.training.checkpoint import resumed_epochs

    done = [f"phase {result.name} is finished" for result in run.results.phases]
    folder = RunFolder(run.folder)
    for phase in run.plan.phases if run.plan else ():
        if run.results.phase(phase.name):
            continue
        if folds := len(list(folder.folds(phase.name).glob("[0-9]*.safetensors"))):
            done.append(f"{phase.name} after {plural(folds, 'fold')}")
        try:
            epochs = resumed_epochs(folder.checkpoint(phase.name))
        except RunFolderError:  # the phase begins again, and says why
            continue
        if epochs:
            done.append(f"{phase.name} at epoch {epochs + 1} of {phase.epochs}")
    return done


def _describe_validation(metrics: EpochMetrics, monitor: Monitor) -> str:
    """Describes an epoch's scores on the validation images, if there are any: what epochs are compared by."""
    scores = metrics.scores
    if scores is None:
        return ""
    name, value = "accuracy", scores.accuracy
    if scores.mean_average_precision is not None:
        name, value = "mean average precision", scores.mean_average_precision
    elif monitor == "balanced_accuracy":
        name, value = "balanced accuracy", scores.balanced_accuracy
    return f"validation loss {scores.loss:.4f}, {name} {value:.3f}, "
