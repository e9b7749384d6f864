"""What the phases of a run share."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tlkit.data.dataset import Dataset
from tlkit.experiment.frozen_pass import FrozenPass
from tlkit.experiment.log import AnyEvent
from tlkit.experiment.observer import Events, Observer, Run
from tlkit.experiment.results import Results
from tlkit.experiment.run_folder import RunFolder
from tlkit.plugins.registry import Registry
from tlkit.recipe.recipe import Phase

#: Returns why a phase is not worth trying after those before it, or None.
SkipRule = Callable[[Phase, Results], str | None]


@dataclass(frozen=True)
class PhaseContext:
    """What the phases of a run share.

    Attributes:
        run: the run, as plugins see it.
        dataset: its images.
        folder: its folder.
        frozen_pass: computes cached features.
        events: tells plugins and the observer.
        observer: is shown progress.
        registry: all parts.
        skip: of a phase that starts from another one, why it is not worth trying, or None.
        earlier: the events of the run's earlier executions, which were interrupted.
        deadline: when to stop trying phases, as `time.monotonic` counts; None: never.
    """

    run: Run
    dataset: Dataset
    folder: RunFolder
    frozen_pass: FrozenPass
    events: Events
    observer: Observer
    registry: Registry
    skip: SkipRule = lambda _phase, _results: None
    deadline: float | None = None
    earlier: Sequence[AnyEvent] = ()

    @property
    def seconds_left(self) -> float:
        """The time until the deadline; infinite without one."""
        return float("inf") if self.deadline is None else self.deadline - time.monotonic()
