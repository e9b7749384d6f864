"""Checks the parts, optimisers and schedules that a recipe names."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any, Protocol

from tlkit.errors import RecipeError
from tlkit.parts.task import Task
from tlkit.recipe.recipe import Phase, Recipe
from tlkit.runtime.distributed import process_state
from tlkit.training.optimizers import optimizer_problems, schedule_problems


class PartChecker(Protocol):
    """The part of `tlkit.plugins.registry.Registry` that validation needs."""

    def problems(self, kind: str, name: str, part_options: Mapping[str, Any], /) -> list[tuple[str, str]]:
        """Returns what is wrong with a part's name and options: (option, or "name", and a message)."""

    def task_problems(self, kind: str, name: str, task: Task, /) -> list[tuple[str, str]]:
        """Returns whether a head or loss is not meant for a task, as `problems` does."""

    def needs_root(self, source: str, /) -> bool:
        """Returns whether a source requires a folder."""


def validate(recipe: Recipe, registry: PartChecker) -> None:
    """Checks a recipe with its parts and their options.

    Raises:
        RecipeError: everything that is wrong with it.
    """
    problems = recipe_problems(recipe, registry)
    if problems:
        raise RecipeError(problems, recipe=recipe.label)


def recipe_problems(recipe: Recipe, registry: PartChecker) -> list[str]:
    """Returns everything that is wrong with a recipe: each once, beginning with its key."""
    problems = [*recipe.flaws, *source_problems(recipe, registry), *engine_problems(recipe, registry)]
    for phase in recipe.phases:
        problems += phase_problems(recipe, phase, registry)
    return list(dict.fromkeys(problems))


def source_problems(recipe: Recipe, registry: PartChecker) -> list[str]:
    """Returns what is wrong with the source and its options."""
    if recipe.data is None:
        return []
    name, keys = recipe.data.source.name, {"unlabelled": "data.unlabelled"}
    by_option = registry.problems("source", name, recipe.data.source_options())
    problems = [f"{keys.get(option, f'data.source.{option}')}: {message}" for option, message in by_option]
    if recipe.data.root is None and not problems and registry.needs_root(name):
        problems.append(f"data.root: is missing: source {name!r} needs the folder of its images")
    return problems


def engine_problems(recipe: Recipe, registry: PartChecker) -> list[str]:
    """Returns what is wrong with the engine and its options."""
    if recipe.engine is None:
        return []
    by_option = registry.problems("engine", recipe.engine.name, recipe.engine.options)
    problems = [f"compute.engine.{option}: {message}" for option, message in by_option]
    if "name" in dict(by_option):
        problems[0] += missing_ray()
    if process_state().num_processes > 1:
        problems.append(
            "compute.engine: accelerate has started several processes, and one gives blocks to workers: "
            "compute the features first, with tlkit features, and leave the engine out here"
        )
    return problems


def missing_ray() -> str:
    """Returns how to install the engine `ray`, if it is not, to end the message about an unknown engine."""
    if find_spec("tlkit_ray") is not None:
        return ""
    return "; the engine 'ray' is installed with: pip install 'tlkit[ray]'"


def phase_problems(recipe: Recipe, phase: Phase, registry: PartChecker) -> list[str]:
    """Returns what is wrong with a phase's parts, optimiser and schedule."""
    training = phase.training
    by_part = [
        ("backbone", registry.problems("backbone", phase.backbone.name, phase.backbone.options)),
        ("head", registry.problems("head", phase.head.name, phase.head.options)),
        ("freeze", registry.problems("freeze-policy", phase.freeze.name, phase.freeze.options)),
        (
            "augmentation",
            registry.problems("augmentation", phase.augmentation.name, phase.augmentation.options),
        ),
        ("loss", registry.problems("loss", training.loss.name, training.loss.options)),
        ("head", registry.task_problems("head", phase.head.name, recipe.task)),
        ("loss", registry.task_problems("loss", training.loss.name, recipe.task)),
        ("optimizer", optimizer_problems(training.optimizer.name, training.optimizer.options)),
    ]
    if training.schedule is not None:
        schedule = training.schedule
        problems = schedule_problems(schedule.name, schedule.options, training.epochs)
        by_part.append(("schedule", problems))
    return [
        f"{_key(recipe, phase.name, part, option)}: {message}"
        for part, problems in by_part
        for option, message in problems
    ]


def _key(recipe: Recipe, phase: str, part: str, option: str) -> str:
    """Returns the key under which an option of a phase's part is written in the file."""
    rows = (row for row in recipe.tree["phase"] if isinstance(row, dict))
    own = next(row for row in rows if row.get("name") == phase).get(part)
    in_phase = isinstance(own, str) or (isinstance(own, dict) and (option in own or "name" in own))
    if in_phase or part in ("freeze", "augmentation"):
        return f"phase.{phase}.{part}.{option}"
    return f"training.{part}.{option}" if part in ("loss", "optimizer", "schedule") else f"{part}.{option}"
