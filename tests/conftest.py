"""What tests of runs share: a recipe that runs within seconds, and a finished run."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from small_runs import RECIPE, Runner, copy_run, write_recipe

import tlkit

# terminals, signals and limits of a process that Windows does not have
UNIX_ONLY = ["attack/test_images.py", "attack/test_model_folders.py", "attack/test_recipes.py"]
UNIX_ONLY += ["cli/test_console.py", "cli/test_terminal.py", "runtime/test_process.py"]
collect_ignore = UNIX_ONLY if sys.platform == "win32" else []


@pytest.fixture
def run(few_photos: Path, tmp_path: Path) -> Runner:
    """Runs the small recipe with a kind of backbone, in a numbered run folder of its own."""

    def run_recipe(kind: str = "residual", text: str = RECIPE, **arguments: Any) -> tlkit.Run:
        recipe = write_recipe(tmp_path / "recipe.toml", few_photos, kind, text)
        arguments.setdefault("out", tmp_path / f"run-{len(list(tmp_path.iterdir()))}")
        return tlkit.run(recipe, **arguments)

    return run_recipe


@pytest.fixture
def run_copy(fitted: Path, tmp_path: Path) -> Path:
    """A copy of a finished run's folder, which a test may damage; its weights must not be written to."""
    return copy_run(fitted, tmp_path / "run")
