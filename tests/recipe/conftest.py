"""Writing recipes."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from recipes import write_recipe


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Writes ``(text, name)`` to a file in the test's folder; returns its path."""
    return partial(write_recipe, tmp_path)
