"""What watches a run: the console, a notebook, a test."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tlkit.planning import Plan


class Observer:
    """Watches a run; what it does not override is passed over in silence."""

    def planned(self, plan: Plan) -> None:
        """The plan is made."""

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
