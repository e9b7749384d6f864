"""Arguments that are one value or several."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TypeVar

Name = TypeVar("Name", bound=str | Path)
#: One path or several.
Paths = str | Path | Iterable[str | Path]


def as_list(names: Name | Iterable[Name]) -> list[Name]:
    """Returns names as a list; a single string or path, which Python could iterate, is a list of one."""
    return [names] if isinstance(names, str | Path) else list(names)
