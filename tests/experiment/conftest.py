"""What the tests of runs share: a recipe that runs within seconds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from small_runs import RECIPE, write_recipe

import tlkit

Runner = Callable[..., tlkit.Run]


@pytest.fixture
def run(few_photos: Path, tmp_path: Path) -> Runner:
    """Runs the small recipe with a kind of backbone, in a numbered run folder of its own."""

    def run_recipe(kind: str = "residual", text: str = RECIPE, **arguments: Any) -> tlkit.Run:
        recipe = write_recipe(tmp_path / "recipe.toml", few_photos, kind, text)
        arguments.setdefault("out", tmp_path / f"run-{len(list(tmp_path.iterdir()))}")
        return tlkit.run(recipe, **arguments)

    return run_recipe
