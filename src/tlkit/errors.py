"""Everything tlkit raises on purpose.

    TlkitError              a mistake or a circumstance the user can do something about: exit code 2
    ├── RecipeError         one or several things wrong in a recipe, all listed
    ├── PluginError         a plugin or a part that cannot be had
    ├── DataError           images or labels that cannot be used
    ├── WeightsError        weights that cannot be reached, read or matched
    ├── FetchError           a download that cannot be had, or is not what it should be
    ├── StoreError          the feature store cannot be written or read
    ├── ExportError          a classifier that another tool cannot have
    ├── ReportError          a page that cannot be written
    └── RunFolderError      a run or model folder that cannot be used as asked

Whatever else escapes is a fault of tlkit's or of a plugin's.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence


class TlkitError(Exception):
    """Base of all errors that a user can mend; its text says what, where and what to do next."""


class RecipeError(TlkitError):
    """A recipe that cannot be run.

    Attributes:
        problems: one line per mistake, each beginning with the key it is about.
    """

    def __init__(self, problems: Sequence[str], *, recipe: str | None = None) -> None:
        self.problems = list(problems)
        self.recipe = recipe
        count = "1 problem" if len(self.problems) == 1 else f"{len(self.problems)} problems"
        head = f"{recipe or 'recipe'}: {count}"
        super().__init__("\n".join([head, *(f"  - {problem}" for problem in self.problems)]))


class PluginError(TlkitError):
    """A plugin that cannot be used, or a part that nobody registered."""


class DataError(TlkitError):
    """Images or labels that cannot be used."""


class WeightsError(TlkitError):
    """Weights that cannot be reached, read, or that belong to another network."""


class FetchError(TlkitError):
    """Something that could not be fetched, or that is not what it should be."""


class ExportError(TlkitError):
    """A classifier that cannot be exported as asked, or whose export answers differently."""


class ReportError(TlkitError):
    """A page that cannot be written."""


class StoreError(TlkitError):
    """The feature store cannot be written or read."""


class RunFolderError(TlkitError):
    """A run folder or model folder that cannot be used as asked."""


def close_matches(name: str, known: Iterable[str]) -> str:
    """``" (did you mean 'a' or 'b'?)"``, or nothing when no known name is close."""
    matches = difflib.get_close_matches(name, list(known), n=3, cutoff=0.6)
    return f" (did you mean {' or '.join(repr(match) for match in matches)}?)" if matches else ""
