"""Recipes of several labels per image: their defaults, and what does not go with them."""

from __future__ import annotations

from pathlib import Path

import pytest
from recipes import MINIMAL, problems, write_recipe

from tlkit.errors import RecipeError
from tlkit.recipe.recipe import read_recipe
from tlkit.recipe.task import require_one_label

SEVERAL = f'task = "multilabel"\n{MINIMAL}'


def test_the_task_has_defaults_of_its_own(tmp_path: Path) -> None:
    recipe = read_recipe(write_recipe(tmp_path, SEVERAL))
    training = recipe.phases[0].training
    assert recipe.task == "multilabel"
    assert (training.loss.name, training.monitor) == ("binary-cross-entropy", "mean_average_precision")
    assert training.class_weights == "none"
    again = read_recipe(write_recipe(tmp_path, recipe.to_toml(), "resolved.toml"))
    assert again == recipe
    single = read_recipe(write_recipe(tmp_path, MINIMAL))
    assert (single.task, single.phases[0].training.monitor) == ("multiclass", "accuracy")


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ('monitor="accuracy"', 'training.monitor: must be "mean_average_precision" or "loss"'),
        ('class_weights="balanced"', 'training.class_weights: must be "none"'),
    ],
)
def test_measures_of_one_label_are_refused(tmp_path: Path, override: str, line: str) -> None:
    path = write_recipe(tmp_path, SEVERAL)
    (problem,) = problems(path, f"training.{override}")
    assert problem.startswith(line)
    (problem,) = problems(path, f"phase.only.{override}")
    assert problem.startswith(line.replace("training", "phase.only"))


def test_keys_of_one_label_are_refused(tmp_path: Path) -> None:
    path = write_recipe(tmp_path, SEVERAL)
    overrides = ["reject_below=0.5", "data.per_class={train=1,val=1,test=1}", "data.corrections=x.csv"]
    assert [line.partition(":")[0] for line in problems(path, *overrides)] == [
        "reject_below",
        "data.per_class",
        "data.corrections",
    ]
    (problem,) = problems(write_recipe(tmp_path, MINIMAL), "training.monitor=mean_average_precision")
    assert problem == 'training.monitor: "mean_average_precision" is for task = "multilabel" alone'
    (problem,) = problems(write_recipe(tmp_path, MINIMAL), "task=many")
    assert problem.startswith("task: must be 'multiclass' or 'multilabel'")


def test_a_command_that_needs_one_label_says_so(tmp_path: Path) -> None:
    recipe = read_recipe(write_recipe(tmp_path, SEVERAL))
    with pytest.raises(RecipeError, match="task: tlkit audit needs one label per image"):
        require_one_label(recipe, "tlkit audit")
    require_one_label(read_recipe(write_recipe(tmp_path, MINIMAL)), "tlkit audit")
