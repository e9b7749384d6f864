"""Shows a run on the console. It imports torch, so commands import it when they run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import tlkit
from tlkit.cli import console
from tlkit.cli.plan_text import print_estimates, print_plan
from tlkit.cli.results_text import accuracy_with_interval
from tlkit.experiment.results import PhaseResult
from tlkit.recipe.recipe import Phase
from tlkit.training.history import EpochMetrics


class ConsoleObserver(tlkit.Observer):
    """Prints a run's plan and estimates, its progress, and the scores of each epoch and phase."""

    @tlkit.hookimpl
    def tlkit_run_started(self, run: tlkit.Run) -> None:
        """Prints the plan, and how long the phases will train."""
        print_run_plan(run)

    @tlkit.hookimpl
    def tlkit_epoch_ended(self, phase: Phase, epoch: int, metrics: EpochMetrics) -> None:
        """Prints the epoch's metrics."""
        console.say(
            f"{phase.name} {epoch}/{phase.training.epochs}: loss {metrics.train_loss:.4f}, "
            f"validation loss {metrics.val_loss:.4f}, accuracy {metrics.val_accuracy:.3f}, "
            f"balanced accuracy {metrics.val_balanced_accuracy:.3f}, {metrics.seconds:.1f} s",
            stderr=True,
        )

    @tlkit.hookimpl
    def tlkit_phase_ended(self, result: PhaseResult) -> None:
        """Prints the phase's accuracy."""
        accuracy = accuracy_with_interval(result.test)
        console.say(f"{result.name}: {accuracy} on {result.test.n:,} test images")

    @contextmanager
    def progress(self, task: str, total: int, unit: str) -> Iterator[console.Tick]:
        """Shows a piece of work as `console.progress` does."""
        with console.progress(task, total, unit) as tick:
            yield tick

    def note(self, text: str) -> None:
        """Prints a warning."""
        console.say(text, style="yellow", stderr=True)


def print_run_plan(run: tlkit.Run) -> None:
    """Prints a run's plan, and how long its phases will train."""
    if run.plan is not None:
        print_plan(run.plan)
        print_estimates(run.estimates())
