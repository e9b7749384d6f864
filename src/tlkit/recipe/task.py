"""What goes with which task: one label per image, or several."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from tlkit.errors import RecipeError
from tlkit.parts.task import Task
from tlkit.recipe.reader import Tree

if TYPE_CHECKING:
    from tlkit.recipe.recipe import Phase, Recipe

MULTILABEL = 'task = "multilabel"'


def task_problems(task: Task, tree: Tree, phases: Sequence[Phase]) -> Iterator[str]:
    """Yields the keys of a recipe that do not go with its task."""
    if task == "multilabel":
        if "reject_below" in tree:
            yield f"reject_below: does not go with {MULTILABEL}, which has a threshold per class instead"
        data = tree.get("data")
        for key, reason in (
            (
                "per_class",
                "an image counts for several classes: use data.fractions, data.folds or data.splits",
            ),
            ("corrections", "corrections have one label per image: correct the source's labels"),
        ):
            if isinstance(data, dict) and key in data:
                yield f"data.{key}: does not go with {MULTILABEL}: {reason}"
    for phase in phases:
        training = phase.training
        if task == "multilabel" and training.monitor in ("accuracy", "balanced_accuracy"):
            key, measures = _key(tree, phase, "monitor"), '"mean_average_precision" or "loss"'
            yield f'{key}: must be {measures} with {MULTILABEL}, and is "{training.monitor}"'
        if task == "multiclass" and training.monitor == "mean_average_precision":
            yield f'{_key(tree, phase, "monitor")}: "mean_average_precision" is for {MULTILABEL} alone'
        if task == "multilabel" and training.class_weights == "balanced":
            key = _key(tree, phase, "class_weights")
            yield f'{key}: must be "none" with {MULTILABEL}: an image may have several classes'


def require_one_label(recipe: Recipe, command: str) -> None:
    """Raises RecipeError if images have several labels, and `command`, such as "tlkit audit", needs one."""
    if recipe.task == "multilabel":
        problem = f"task: {command} needs one label per image, and this recipe has {MULTILABEL}"
        raise RecipeError([problem], recipe=recipe.label)


def _key(tree: Tree, phase: Phase, key: str) -> str:
    """Returns the key as the file has it: the phase's own, or that of [training]."""
    rows = [row for row in tree["phase"] if isinstance(row, dict) and row.get("name") == phase.name]
    return f"phase.{phase.name}.{key}" if any(key in row for row in rows) else f"training.{key}"
