"""A run as it is seen from outside, and what watches it: the console, a notebook, a test, a plugin."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tlkit.estimating import Estimate
    from tlkit.planning import Plan
    from tlkit.recipe import Recipe


@dataclass
class Run:
    """One execution of a recipe, as hooks and the caller see it.

    Attributes:
        recipe: what is run.
        folder: where its files are.
        plan: what it does; None where a finished run was only read.
        results: the content of results.json, growing phase by phase.
        stopping: why the phase that trains is to end, if something asked for it.
    """

    recipe: Recipe
    folder: Path
    plan: Plan | None = None
    results: dict[str, Any] = field(default_factory=dict)
    stopping: str | None = None

    def stop_phase(self, reason: str) -> None:
        """Ends the phase that trains after this epoch; the best weights so far are kept.

        For plugins that watch with `tlkit_epoch_ended`. The reason is in results.json as `stopped`.
        """
        self.stopping = reason


class Observer:
    """Watches a run; what it does not override is passed over in silence."""

    def planned(self, plan: Plan) -> None:
        """The plan is made."""

    def estimating(self, estimates: Callable[[], Mapping[str, Estimate]]) -> None:
        """What the phases will cost can be had: the call measures it, in about a second for each phase."""

    @contextmanager
    def working(self, what: str, total: int, unit: str) -> Iterator[Any]:
        """Some work begins; yields a function that is called with how much of `total` is done."""
        yield lambda _: None

    def epoch_ended(self, phase: str, row: Mapping[str, float], epochs: int) -> None:
        """An epoch is trained and validated."""

    def phase_ended(self, result: Mapping[str, Any]) -> None:
        """A phase is evaluated; `result` is its entry in results.json."""

    def note(self, text: str) -> None:
        """Something the user should know."""
