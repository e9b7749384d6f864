"""What `tlkit tune` chooses from: keys of a phase's head and training, and their values."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, get_args

from tlkit.errors import RecipeError, close_matches
from tlkit.plugins.registry import Registry
from tlkit.recipe.reader import parse_value
from tlkit.recipe.recipe import Phase, Recipe, make_recipe

if TYPE_CHECKING:
    from optuna.trial import Trial

Value = bool | int | float | str
#: The value of each key that a trial has chosen.
Settings = dict[str, Value]
HEAD_NAME = "head.name"
#: Keys of [training] that matter to a head that fits itself.
OF_SELF_FITTING = frozenset({"training.class_weights"})
#: Keys of [training] whose values are parts.
TRAINING_PARTS = ("optimizer", "schedule", "loss")
FORMS = (
    "KEY=LOW:HIGH, KEY=LOW:HIGH:log or KEY=A,B,C, such as head.dropout=0:0.8, "
    "training.optimizer.lr=1e-5:1e-2:log or head.name=linear,probe"
)


@dataclass(frozen=True)
class Choice:
    """The values that a key may have: those listed, or all between two numbers.

    Attributes:
        key: the recipe's, below the phase: "head.…" or "training.…".
        values: the values; of a range, its ends.
        is_range: whether it is a range, of whole numbers if both ends are.
        log: whether a range is searched evenly on a logarithmic scale.
    """

    key: str
    values: tuple[Value, ...]
    is_range: bool = False
    log: bool = False

    def suggest(self, trial: Trial) -> Value:
        """Lets Optuna choose a value."""
        if not self.is_range:
            chosen = trial.suggest_categorical(self.key, self.values)
            assert chosen is not None  # there is no None among the values
            return chosen
        low, high = self.values
        if isinstance(low, int) and isinstance(high, int):
            return trial.suggest_int(self.key, low, high, log=self.log)
        return trial.suggest_float(self.key, float(low), float(high), log=self.log)


def read_space(space: Mapping[str, Any] | Sequence[str]) -> dict[str, Choice]:
    """Reads what to choose from.

    Args:
        space: strings such as ``"head.dropout=0:0.8"``, or ``{"head.dropout": "0:0.8"}``, where a list stands
            for its values.

    Raises:
        RecipeError: everything that is wrong with it.
    """
    if isinstance(space, str):
        space = [space]
    pairs = list(space.items()) if isinstance(space, Mapping) else [_pair(text) for text in space]
    problems: list[str] = []
    choices: dict[str, Choice] = {}
    for key, value in pairs:
        try:
            if key in choices:
                raise ValueError("appears twice")
            choices[key] = _choice(key, value)
        except ValueError as error:
            problems.append(f"--space {key}: {error}")
    if not pairs:
        problems.append(f"--space: is missing: say what to choose from, as {FORMS}")
    if problems:
        raise RecipeError(problems, recipe="tune")
    return choices


def _pair(text: str) -> tuple[str, str]:
    key, _, value = text.partition("=")
    return key.strip(), value.strip()


def _choice(key: str, value: Any) -> Choice:
    if key.partition(".")[0] not in ("head", "training") or "." not in key:
        raise ValueError(
            "only keys of the head and of training can be searched on cached features: head.… or training.…"
        )
    if isinstance(value, str) and ":" in value:
        low, high, *log = (part.strip() for part in value.split(":"))
        ends = parse_value(low), parse_value(high)
        numbers = all(isinstance(end, int | float) and not isinstance(end, bool) for end in ends)
        if not numbers or log not in ([], ["log"]) or ends[0] >= ends[1] or (log and ends[0] <= 0):
            raise ValueError(f"{value!r} is not a range: {FORMS}; a logarithmic one begins above 0")
        return Choice(key, ends, is_range=True, log=bool(log))
    if isinstance(value, tuple):
        written = ":".join(map(str, value))
        raise ValueError(f"{value!r} may be a range or values: write {written!r}, or a list of values")
    values = [parse_value(part.strip()) for part in value.split(",")] if isinstance(value, str) else value
    if len(set(map(repr, values))) < max(2, len(values)):
        raise ValueError(f"needs at least two different values, as {FORMS}; --set sets a single one")
    if not all(isinstance(item, get_args(Value)) for item in values):
        raise ValueError("values must be numbers, words, true or false")
    return Choice(key, tuple(values))


class SearchSpace:
    """The choices for one phase of a recipe.

    Attributes:
        recipe: the recipe.
        phase: the phase.
    """

    def __init__(
        self, recipe: Recipe, phase: Phase, choices: Mapping[str, Choice], registry: Registry, fits: set[str]
    ) -> None:
        """Keeps the choices.

        Args:
            recipe: the recipe.
            phase: the phase that is tuned.
            choices: what to choose from, by key.
            registry: where the heads are.
            fits: the heads among those to choose from that fit themselves.

        Raises:
            RecipeError: no head has an option that is searched.
        """
        self.recipe, self.phase = recipe, phase
        self._choices, self._fits = choices, fits
        named = choices.get(HEAD_NAME)
        heads = [str(name) for name in named.values] if named else [phase.head.name]
        self._options = {name: _options(registry, name) for name in heads}
        head_keys = {f"head.{option}" for options in self._options.values() for option in options}
        self._check_options(head_keys | {HEAD_NAME}, heads)

    def _check_options(self, known: set[str], heads: Sequence[str]) -> None:
        unknown = [key for key in self._choices if key.startswith("head.") and key not in known]
        if unknown:
            raise RecipeError(
                [
                    f"--space {key}: head {' or '.join(heads)} has no such option{close_matches(key, known)}"
                    for key in unknown
                ],
                recipe="tune",
            )

    @property
    def logarithmic(self) -> tuple[str, ...]:
        """The keys that are searched on a logarithmic scale."""
        return tuple(key for key, choice in self._choices.items() if choice.log)

    def suggest(self, trial: Trial) -> Settings:
        """Lets Optuna choose a value for each key that has an effect on the head it chooses."""
        choices = dict(self._choices)
        settings: Settings = {}
        if named := choices.pop(HEAD_NAME, None):
            settings[HEAD_NAME] = named.suggest(trial)
        head = str(settings.get(HEAD_NAME, self.phase.head.name))
        for key, choice in choices.items():
            if self._has_effect(key, head):
                settings[key] = choice.suggest(trial)
        return settings

    def _has_effect(self, key: str, head: str) -> bool:
        if key.startswith("head."):
            return key.removeprefix("head.") in self._options[head]
        return head not in self._fits or key in OF_SELF_FITTING

    def extremes(self) -> list[Settings]:
        """Returns settings in which each value that is listed, and each end of a range, is once."""
        rows: list[Settings] = []
        for key, choice in self._choices.items():
            for value in choice.values:
                heads = [head for head in self._options if self._has_effect(key, head)]
                named: Settings = {HEAD_NAME: heads[0]} if HEAD_NAME in self._choices and heads else {}
                rows.append({**named, key: value})
        return rows

    def tuned(self, settings: Settings) -> Recipe:
        """Returns the recipe with a trial's settings in the phase; mistakes are in `Recipe.flaws`."""
        head = self.phase.head.table()
        if settings.get(HEAD_NAME, head["name"]) != head["name"]:
            head = {}
        training: dict[str, Any] = {}
        for key, value in settings.items():
            kind, _, option = key.partition(".")
            if kind == "head":
                head[option] = value
                continue
            name, _, inner = option.partition(".")
            if not inner:
                training[name] = value
                continue
            part = getattr(self.phase.training, name, None) if name in TRAINING_PARTS else None
            training.setdefault(name, part.table() if part else {})[inner] = value
        rows, tuned = [], {self.phase.name}
        for row in self.recipe.tree["phase"]:
            if row["name"] == self.phase.name:
                row = {**row, "head": head, **training}
            elif row.get("start_from") in tuned:  # a phase has the head of the one that it starts from
                tuned.add(row["name"])
                row = {**row, "head": head}
            rows.append(row)
        return make_recipe({**self.recipe.tree, "phase": rows}, self.recipe.path)


def _options(registry: Registry, head: str) -> set[str]:
    parameters = inspect.signature(registry.find("head", head).factory).parameters.values()
    return {parameter.name for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY}
