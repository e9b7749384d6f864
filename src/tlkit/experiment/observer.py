"""A run as plugins and the program that starts it see it, and the events that they are told of."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tlkit.experiment.plan import Plan
from tlkit.experiment.results import Results
from tlkit.experiment.tracking import Trackers
from tlkit.plugins.loader import make_manager
from tlkit.plugins.registry import Registry
from tlkit.recipe.recipe import Recipe
from tlkit.runtime.distributed import process_state

if TYPE_CHECKING:
    from tlkit.experiment.cached_features import CachedFeatures
    from tlkit.experiment.estimate import Estimate

Tick = Callable[[int], object]


@dataclass(repr=False)
class Run:
    """One execution of a recipe.

    Attributes:
        recipe: the recipe.
        folder: the run folder.
        results: the content of results.json, growing phase by phase.
        plan: what the run does; None where a finished run was only read.
        estimates: measures how long the phases will train, in about a second each; see `Estimate`. Empty
            once the run has ended.
        stopping: why the current phase is to end early, if something asked for it.
        features: those that the run has cached of all its labelled images, where there are such, once it has
            ended.
    """

    recipe: Recipe
    folder: Path
    results: Results
    plan: Plan | None = None
    estimates: Callable[[], Mapping[str, Estimate]] = dict
    stopping: str | None = None
    features: CachedFeatures | None = None

    def __repr__(self) -> str:
        """Names the folder and the phases that have ended."""
        return f"Run({str(self.folder)!r}, phases={[result.name for result in self.results.phases]})"

    def stop_phase(self, reason: str) -> None:
        """Ends the current phase after this epoch; the best weights so far are kept.

        For implementations of `tlkit_epoch_ended`. The reason is in results.json as `stopped`.
        """
        self.stopping = reason


class Observer:
    """Watches a run from within the program that starts it.

    Subclass it, and implement tlkit's event hooks (`tlkit_run_started`, `tlkit_epoch_ended`, …) as methods
    decorated with ``@tlkit.hookimpl``, as a plugin does. What they raise ends the run.
    """

    @contextmanager
    def progress(self, task: str, total: int, unit: str, done: int = 0) -> Iterator[Tick]:
        """Shows the progress of a task; yields a function that takes the number of units done since.

        Args:
            task: what is done, such as ``"training bottleneck"``.
            total: how many units that is.
            unit: what is counted, such as ``"images"``.
            done: how many units are done already, in a task that resumes.
        """
        yield lambda _: None

    def note(self, text: str) -> None:
        """Shows a message to the user, such as about a plugin that failed."""


class Events:
    """Calls event hooks: first the observer's, then every plugin's and the recipe's trackers'.

    Only the main process does.

    Attributes:
        trackers: the recipe's trackers, to be closed when the run ends, however it does.
    """

    def __init__(
        self, registry: Registry, observer: Observer, log_failure: Callable[[str, str], object]
    ) -> None:
        """Checks the observer's hook implementations.

        Args:
            registry: of the plugins to call.
            observer: the observer to call, and to show failures of plugins.
            log_failure: called with the hook's name and the problem when a plugin raises.

        Raises:
            PluginError: one is unknown, or takes other arguments.
        """
        self._registry = registry
        self._observer = observer
        self._hooks = make_manager(observer, "observer").hook
        self._log_failure = log_failure
        self.trackers = Trackers(self._tracker_failed)
        self._tracker_hooks = make_manager(self.trackers, "trackers").hook

    def notify(self, hook: str, **values: object) -> None:
        """Calls one hook with keyword arguments."""
        if not process_state().is_main_process:
            return
        getattr(self._hooks, hook)(**values)
        for problem in self._registry.notify(hook, **values):
            self._observer.note(problem)
            self._log_failure(hook, problem)
        getattr(self._tracker_hooks, hook)(**values)

    def _tracker_failed(self, name: str, problem: str) -> None:
        self._observer.note(f"the run continues without {name}, which failed: {problem}")
        self._log_failure("track", f"{name}: {problem}")
