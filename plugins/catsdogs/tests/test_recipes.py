"""The experiment's recipes are valid, consistent, and have the experiment's own settings."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
from tlkit_catsdogs.imagenet import GROUPS

from tlkit import load_registry, read_recipe
from tlkit.experiment.validation import recipe_problems

EXAMPLES = Path(__file__).parents[3] / "examples" / "catsdogs"
RECIPES = sorted(EXAMPLES.rglob("*.toml"))
IMPROVEMENTS = {"more-augmentation", "more-dropout", "one-more-block", "weight-decay", "another-backbone"}


def read(path: Path) -> dict[str, Any]:
    return tomllib.loads(path.read_text(encoding="utf-8"))


def test_there_is_one_for_each_improvement() -> None:
    assert {path.stem for path in (EXAMPLES / "improvements").iterdir()} == IMPROVEMENTS


def test_each_run_has_a_folder_of_its_own() -> None:
    names = [read(path)["name"] for path in RECIPES]
    assert len(set(names)) == len(names) > len(IMPROVEMENTS)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_they_change_existing_keys_and_phases_only(path: Path) -> None:
    recipe = read(path)
    base = read(path.parent / recipe["extends"]) if "extends" in recipe else recipe
    assert recipe.keys() - {"extends"} <= base.keys()
    phases = [phase["name"] for phase in base["phase"]]
    assert phases == ["benchmark", "zero-shot", "bottleneck", "fine-tune"]
    assert {phase["name"] for phase in recipe.get("phase", [])} <= set(phases)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_they_are_valid(path: Path) -> None:
    assert recipe_problems(read_recipe(path), load_registry()) == []


def test_the_experiments_own_numbers() -> None:
    recipe = read(EXAMPLES / "photos.toml")
    assert recipe["data"]["per_class"] == {"train": 1000, "val": 400, "test": 6250}
    assert (recipe["preprocess"]["size"], recipe["phase"][0]["preprocess"]["size"]) == (299, 150)
    assert (recipe["head"]["hidden"], recipe["head"]["dropout"]) == (256, 0.5)
    assert (recipe["training"]["epochs"], recipe["training"]["batch_size"]) == (50, 32)
    assert recipe["training"]["optimizer"] == {"name": "sgd", "lr": 1e-4, "momentum": 0.9}
    assert recipe["goal"] == 0.8


def test_zero_shot_uses_the_plugins_groups() -> None:
    phase = read_recipe(EXAMPLES / "photos.toml").phase("zero-shot")
    assert phase.head.options["groups"] == GROUPS
