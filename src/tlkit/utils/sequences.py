"""Arguments that are one value or several, and sequences in parts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import TypeVar

Name = TypeVar("Name", bound=str | Path)
Item = TypeVar("Item")
#: One path or several.
Paths = str | Path | Iterable[str | Path]


def as_list(names: Name | Iterable[Name]) -> list[Name]:
    """Returns names as a list; a single string or path, which Python could iterate, is a list of one."""
    return [names] if isinstance(names, str | Path) else list(names)


def batched(items: Iterable[Item], size: int) -> Iterator[tuple[Item, ...]]:
    """Yields the items, `size` at a time; the last part may have fewer."""
    iterator = iter(items)
    while batch := tuple(islice(iterator, size)):
        yield batch
