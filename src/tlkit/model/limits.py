"""Limits on the options that a model folder may name: it may be a stranger's.

A model folder names registered parts with plain options, and has its own weights. Before anything is built,
its options are checked; while a part is built, see `tlkit.model.building`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

#: Bounds of options: of a number, of the items of all tables and lists together, and of tables in tables.
MAX_NUMBER = 1_000_000
MAX_ITEMS = 20_000
MAX_DEPTH = 20


def check_options(options: Mapping[str, Any]) -> None:
    """Checks that a part's options are plain values of reasonable size.

    Raises:
        ValueError: they are not; the message begins with the option.
    """
    count = 0

    def check(value: Any, key: str, depth: int) -> None:
        nonlocal count
        count += 1
        if count > MAX_ITEMS or depth > MAX_DEPTH:
            raise ValueError(f"{key}: is too large")
        if isinstance(value, Mapping):
            for name, item in value.items():
                check(item, f"{key}.{name}" if key else str(name), depth + 1)
        elif isinstance(value, list | tuple):
            for item in value:
                check(item, key, depth + 1)
        elif isinstance(value, int | float) and not abs(value) <= MAX_NUMBER:  # NaN too
            raise ValueError(f"{key}: {value!r:.40} is not within {MAX_NUMBER:,}")

    check(options, "", 0)
