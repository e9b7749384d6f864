"""The exceptions that tlkit raises on purpose.

    TlkitError              a mistake or a condition that the user can correct: exit code 2
    ├── RecipeError         one or more mistakes in a recipe, all listed
    ├── PluginError         a plugin that cannot be used, or a part that is unknown or cannot be made
    ├── DataError           images or labels that cannot be used
    ├── WeightsError        weights that cannot be downloaded, read or loaded
    │   └── UnreachableWeightsError    they are not on this machine, and their host cannot be reached
    ├── AuditFileError      an audit.json or corrections.csv that cannot be read or used
    ├── FetchError          a download that fails, or is not the expected file
    ├── StoreError          the feature store cannot be read or written
    ├── EngineError         an engine whose workers cannot be started, or do not compute what is asked for
    ├── TrainingError       training that is impossible, or whose loss is not finite
    ├── ExportError         a classifier that cannot be exported
    ├── ServingError        a service that cannot be started
    ├── ReportError         a page or picture that cannot be written
    └── RunFolderError      a run folder or model folder that cannot be used as requested

Any other exception is a bug in tlkit or in a plugin.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any


class TlkitError(Exception):
    """Base of all errors that the user can correct; the message says what, where and what to do next."""


class RecipeError(TlkitError):
    """A recipe that cannot be run.

    Attributes:
        problems: one line per mistake, each beginning with the key that it is about.
        recipe: the recipe's name or file, or None.
    """

    def __init__(self, problems: Sequence[str], *, recipe: str | None = None) -> None:
        self.problems = list(problems)
        self.recipe = recipe
        count = "1 problem" if len(self.problems) == 1 else f"{len(self.problems)} problems"
        head = f"{recipe or 'recipe'}: {count}"
        super().__init__("\n".join([head, *(f"  - {problem}" for problem in self.problems)]))

    def __reduce__(self) -> tuple[Any, ...]:
        """Lets it be raised in another process."""
        return partial(RecipeError, recipe=self.recipe), (self.problems,)


class PluginError(TlkitError):
    """A plugin that cannot be used, or a part that is unknown or cannot be made."""


class DataError(TlkitError):
    """Images or labels that cannot be used."""


class WeightsError(TlkitError):
    """Weights that cannot be downloaded or read, or that belong to another network."""


class UnreachableWeightsError(WeightsError):
    """Weights that are not on this machine, and whose host cannot be reached."""


class AuditFileError(TlkitError):
    """An audit.json or corrections.csv that cannot be read or used."""


class FetchError(TlkitError):
    """A download that fails, or is not the expected file."""


class StoreError(TlkitError):
    """The feature store cannot be read or written."""


class EngineError(TlkitError):
    """An engine whose workers cannot be started, are always lost, or would compute something else."""


class TrainingError(TlkitError):
    """Training that is impossible, or whose loss is not finite."""


class ExportError(TlkitError):
    """A classifier that cannot be exported as requested, or whose export gives other logits."""


class ServingError(TlkitError):
    """A service that cannot be started."""


class ReportError(TlkitError):
    """A page or picture that cannot be written."""


class RunFolderError(TlkitError):
    """A run folder or model folder that cannot be used as requested."""


def close_matches(name: str, known: Iterable[str]) -> str:
    """Returns ``" (did you mean 'a' or 'b'?)"``, or an empty string if no known name is similar."""
    matches = difflib.get_close_matches(name, list(known), n=3, cutoff=0.6)
    return f" (did you mean {' or '.join(repr(match) for match in matches)}?)" if matches else ""
