"""What a report cannot show, and why."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from typing import TypeVar

from tlkit.experiment.record import RunRecord
from tlkit.utils.formatting import plural

Part = TypeVar("Part")


class Missing:
    """Collects reasons why parts of a page are missing, each once."""

    def __init__(self) -> None:
        """Begins without reasons."""
        self._reasons: dict[str, None] = {}

    @property
    def reasons(self) -> list[str]:
        """The reasons, in the order in which they were added."""
        return list(self._reasons)

    def add(self, reason: str) -> None:
        """Adds a sentence."""
        self._reasons[reason] = None

    def attempt(self, name: str, make: Callable[[], Part]) -> Part | None:
        """Returns a part that the page can do without; if it cannot be made, adds why and returns None.

        Networks, augmentations and sources belong to plugins, which may raise anything.
        """
        try:
            return make()
        except Exception as error:
            self.add(f"Not shown: {name}. {type(error).__name__}: {error}")
            return None


def add_unfinished_phases(record: RunRecord, missing: Missing) -> None:
    """Adds the phases of a run that have not ended, and how to resume it."""
    unfinished = [phase for phase in record.phases if phase.result is None]
    for phase in unfinished:
        epochs = len(phase.history)
        progress = f"it has trained {plural(epochs, 'epoch')}" if epochs else "it has not begun"
        missing.add(f"Phase {phase.name} has not ended: {progress}.")
    if unfinished:
        folder = shlex.quote(str(record.folder))
        missing.add(f"`tlkit run {folder} --out {folder}` resumes the run.")
