"""How the recipes of several runs differ, and how much runs that differ in nothing but the seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

from tlkit.recipe.reader import plain
from tlkit.recipe.recipe import Recipe
from tlkit.recipe.schema import flatten, to_toml_value

#: Keys in which repetitions of one experiment may differ.
REPETITION_KEYS = frozenset({"name", "seed"})


@dataclass(frozen=True)
class RecipeDifference:
    """A key in which recipes differ, and its value in each as TOML; empty where a recipe does not have it."""

    key: str
    values: tuple[str, ...]


@dataclass(frozen=True)
class Spread:
    """How much the accuracies of several trainings of one recipe differ.

    Attributes:
        mean: of their accuracies.
        deviation: the standard deviation of their accuracies.
        count: number of trainings.
        over: what they differ in: "seeds" or "folds".
    """

    mean: float
    deviation: float
    count: int
    over: str

    @staticmethod
    def of(accuracies: Sequence[float], over: str) -> Spread | None:
        """Returns the spread of accuracies; None for fewer than two."""
        if len(accuracies) < 2:
            return None
        return Spread(fmean(accuracies), stdev(accuracies), len(accuracies), over)

    def describe(self) -> str:
        """Describes the deviation, such as "±0.011 over 3 seeds"."""
        return f"±{self.deviation:.3f} over {self.count} {self.over}"


def recipe_differences(recipes: Sequence[Recipe]) -> list[RecipeDifference]:
    """Returns the keys in which recipes differ, in the order in which they are written."""
    values = [_flat({"seed": recipe.seed, **plain(recipe.tree)}) for recipe in recipes]
    keys = dict.fromkeys(key for recipe in values for key in recipe)
    rows = [(key, tuple(recipe.get(key, "") for recipe in values)) for key in keys]
    return [RecipeDifference(key, row) for key, row in rows if len(set(row)) > 1]


def repetitions(recipes: Sequence[Recipe]) -> list[list[int]]:
    """Groups recipes that differ in nothing but the seed: positions, in groups of two seeds or more."""
    groups: dict[tuple[tuple[str, str], ...], dict[int, int]] = {}
    for position, recipe in enumerate(recipes):
        rest = {key: value for key, value in plain(recipe.tree).items() if key not in REPETITION_KEYS}
        # one run counts for each seed
        groups.setdefault(tuple(sorted(_flat(rest).items())), {}).setdefault(recipe.seed, position)
    return [list(positions.values()) for positions in groups.values() if len(positions) > 1]


def _flat(tree: Mapping[str, Any]) -> dict[str, str]:
    """Returns a recipe's dotted keys and their values as TOML."""
    return {key: to_toml_value(value) for key, value in flatten(tree)}
