"""What a recipe says: the data, the phases, and how each of them trains.

The parsed recipe knows no plugins: `Recipe.problems` checks parts and their options against a registry.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar, cast

import tomli_w
from pydantic import BaseModel, ValidationError

from tlkit.errors import RecipeError, close_matches
from tlkit.optimisation import optimizer_problems, schedule_problems
from tlkit.recipe_file import Tree, merge, merge_part, plain, read_tree
from tlkit.recipe_tables import DEFAULTS, Data, Part, PreprocessTable, RecipeTable, Training, say, toml

Model = TypeVar("Model", bound=BaseModel)


class Registry(Protocol):
    """What knows the parts."""

    def problems(self, kind: str, name: str, given: Mapping[str, Any], /) -> list[tuple[str, str]]:
        """What is wrong with a part's name and options: (option, or "name", and a message)."""

    def needs_root(self, source: str, /) -> bool:
        """Whether a source cannot do without a folder."""


@dataclass(frozen=True)
class Phase:
    """One row of a recipe, with all that it inherits.

    Attributes:
        name: also its folder's.
        backbone: the pretrained network.
        preprocess: settings in place of the backbone's own.
        head: what learns to tell the classes apart.
        freeze: the policy that says what learns.
        augmentation: how training images are varied.
        views: how many versions of each training image take turns; "fresh" for a new one each time;
            "auto" for eight where they cost less than that and fit in the cache.
        start_from: the earlier phase whose weights it begins with.
        statistics: whether batch norms update theirs; None: only where the whole backbone learns.
        keep: whether what lies in front of the frontier is kept.
        training: how it trains.
    """

    name: str
    backbone: Part
    preprocess: Mapping[str, Any]
    head: Part
    freeze: Part
    augmentation: Part
    views: int | Literal["fresh", "auto"]
    start_from: str | None
    statistics: Literal["learn", "keep"] | None
    keep: bool
    training: Training


@dataclass(frozen=True)
class Recipe:
    """An experiment: data, and phases in the order they run.

    Attributes:
        name: of the experiment.
        seed: what splits, order, augmentation, dropout and new weights are drawn from.
        goal: accuracy that the last phase is to reach on the test images.
        reject_below: confidence below which a classifier is to say "unclassified" instead of guessing.
        data: where images come from.
        phases: what is done, in order.
        path: the file it was read from.
        tree: its tables, with `extends` followed, overrides set, and paths absolute.
        flaws: what was found wrong on reading; a recipe with flaws is not to be run.
    """

    name: str
    seed: int
    goal: float | None
    reject_below: float | None
    data: Data | None
    phases: tuple[Phase, ...]
    path: Path | None = field(default=None, compare=False)
    tree: Tree = field(default_factory=dict, compare=False, repr=False)
    flaws: tuple[str, ...] = ()

    def phase(self, name: str) -> Phase:
        """The phase of that name.

        Raises:
            RecipeError: there is none.
        """
        names = [phase.name for phase in self.phases]
        if name not in names:
            hint = close_matches(name, names) or f"; there are {', '.join(names)}"
            raise RecipeError([f"there is no phase {name!r}{hint}"], recipe=str(self.path or self.name))
        return self.phases[names.index(name)]

    def to_toml(self) -> str:
        """The recipe by itself: nothing to extend, nothing to set, paths absolute."""
        return tomli_w.dumps(plain(self.tree))

    def problems(self, registry: Registry) -> list[str]:
        """What is wrong with it, with the parts and their options: each once, beginning with its key."""
        found = [*self.flaws, *self.data_problems(registry)]
        for phase in self.phases:
            found += self.phase_problems(phase, registry)
        return list(dict.fromkeys(found))

    def data_problems(self, registry: Registry) -> list[str]:
        """Those of the source."""
        if self.data is None:
            return []
        name, keys = self.data.source.name, {"unlabelled": "data.unlabelled"}
        found = registry.problems("source", name, self.data.source_options())
        said = [f"{keys.get(option, f'data.source.{option}')}: {message}" for option, message in found]
        if self.data.root is None and not found and registry.needs_root(name):
            said.append(f"data.root: is missing: source {name!r} needs the folder of its images")
        return said

    def phase_problems(self, phase: Phase, registry: Registry) -> list[str]:
        """Those of one phase."""
        training = phase.training
        checked = [
            ("backbone", registry.problems("backbone", phase.backbone.name, phase.backbone.options)),
            ("head", registry.problems("head", phase.head.name, phase.head.options)),
            ("freeze", registry.problems("freeze-policy", phase.freeze.name, phase.freeze.options)),
            (
                "augmentation",
                registry.problems("augmentation", phase.augmentation.name, phase.augmentation.options),
            ),
            ("optimizer", optimizer_problems(training.optimizer.name, training.optimizer.options)),
        ]
        if training.schedule is not None:
            checked.append(("schedule", schedule_problems(training.schedule.name, training.schedule.options)))
        return [
            f"{self._key(phase.name, part, option)}: {message}"
            for part, problems in checked
            for option, message in problems
        ]

    def validate(self, registry: Registry) -> None:
        """Raises RecipeError with all `problems`, if there are any."""
        found = self.problems(registry)
        if found:
            raise RecipeError(found, recipe=str(self.path or self.name))

    def _key(self, phase: str, part: str, option: str) -> str:
        """Where in the file an option of a phase's part is written."""
        own = next(row for row in self.tree["phase"] if row["name"] == phase).get(part)
        here = isinstance(own, str) or (isinstance(own, dict) and (option in own or "name" in own))
        if here or part in ("freeze", "augmentation"):
            return f"phase.{phase}.{part}.{option}"
        return f"training.{part}.{option}" if part in ("optimizer", "schedule") else f"{part}.{option}"


def read_recipe(path: Path, overrides: Mapping[str, Any] | Sequence[str] = ()) -> Recipe:
    """Reads a recipe and all it extends.

    Args:
        path: the file, or a folder that holds ``recipe.toml``.
        overrides: keys to set, as ``{"dotted.key": value}`` or ``["dotted.key=value"]``.

    Raises:
        RecipeError: everything that is wrong with it, at once.
    """
    recipe = draft_recipe(path, overrides)
    if recipe.flaws:
        raise RecipeError(recipe.flaws, recipe=str(recipe.path))
    return recipe


def draft_recipe(path: Path, overrides: Mapping[str, Any] | Sequence[str] = ()) -> Recipe:
    """As `read_recipe`, with what is wrong in `Recipe.flaws`, so that more can be checked before it is said.

    What could not be read is left out: phases, or parts of the data's table.
    """
    file = path / "recipe.toml" if path.is_dir() else path
    return make_recipe(read_tree(path, overrides), file)


def make_recipe(tables: Tree, file: Path | None = None) -> Recipe:
    """A recipe of TOML's plain tables, with paths absolute; what is wrong is in `Recipe.flaws`."""
    tree = merge(DEFAULTS, tables)
    flaws: list[str] = []
    try:
        RecipeTable.model_validate(tree)
    except ValidationError as error:
        flaws = [say(dict(item), tree) for item in error.errors()]
    rows = [row for row in _tables(tree.get("phase")) if isinstance(row.get("name"), str)]
    phases = [phase for row in rows if (phase := _resolve(tree, row, flaws)) is not None]
    flaws += _order_problems(phases, [row["name"] for row in rows])
    data = _lenient(Data, tree.get("data"))
    if data is not None and data.fractions.val + data.fractions.test >= 1:
        flaws.append("data.fractions: val and test leave nothing to train on")
    goal, seed, reject = tree.get("goal"), tree.get("seed", 1), tree.get("reject_below")
    return Recipe(
        str(tree.get("name")),
        seed,
        goal,
        reject,
        data,
        tuple(phases),
        file,
        tree,
        tuple(dict.fromkeys(flaws)),
    )


def _tables(value: Any) -> list[Tree]:
    return [row for row in value if isinstance(row, dict)] if isinstance(value, list) else []


def _lenient(kind: type[Model], table: Any) -> Model | None:
    """A table without the keys that are wrong; None if too little is left."""
    wrong: set[Any] = set()
    for _ in range(2):
        try:
            return kind.model_validate(
                {key: value for key, value in (table or {}).items() if key not in wrong}
            )
        except ValidationError as error:
            wrong = {item["loc"][0] for item in error.errors()}
        except AttributeError:  # no table at all
            break
    return None


def _resolve(tree: Tree, row: Tree, problems: list[str]) -> Phase | None:
    """A phase with what it inherits from the tables above it."""
    name = row["name"]
    parts: dict[str, Any] = {}
    for part in ("backbone", "head"):
        parts[part] = merge_part(tree.get(part), row.get(part, {}))
        if isinstance(parts[part], dict) and "name" not in parts[part]:
            problems.append(f"phase.{name}.{part}: no {part} is named, neither here nor in [{part}]")
            return None
    trained = {key: row[key] for key in Training.model_fields if key in row}
    merged = merge(_table(tree["training"]), trained)
    # no table has it wrong by itself: there is none above that it could merge into
    schedule = merged.get("schedule")
    if "schedule" in trained and isinstance(schedule, dict) and "name" not in schedule:
        problems.append(f"phase.{name}.schedule: needs a name")
    training = _lenient(Training, merged)
    augmentation, freeze = row.get("augmentation", "none"), row.get("freeze", "backbone")
    if training is None or not all(map(_usable, (*parts.values(), augmentation, freeze))):
        return None  # said already
    table = {"name": augmentation} if isinstance(augmentation, str) else dict(augmentation)
    views = table.pop("views", None)
    problems += _view_problems(name, table, views)
    for part, given in (("freeze", freeze), ("augmentation", table)):
        if not isinstance(given, str) and "name" not in given:
            problems.append(f"phase.{name}.{part}: needs a name")
            return None
    preprocess = _lenient(
        PreprocessTable, merge(_table(tree.get("preprocess")), _table(row.get("preprocess")))
    )
    return Phase(
        name=name,
        backbone=Part.of(parts["backbone"]),
        preprocess=preprocess.model_dump(exclude_none=True) if preprocess else {},
        head=Part.of(parts["head"]),
        freeze=Part.of(freeze),
        augmentation=Part.of(table),
        views=cast(Any, views) or (1 if table.get("name") == "none" else "fresh"),
        start_from=row.get("start_from"),
        statistics=row.get("statistics"),
        keep={**_table(tree.get("features")), **_table(row.get("features"))}.get("keep", True),
        training=training,
    )


def _table(value: Any) -> Tree:
    return value if isinstance(value, dict) else {}


def _usable(part: Any) -> bool:
    return isinstance(part, str) or (isinstance(part, dict) and isinstance(part.get("name", ""), str))


def _view_problems(phase: str, augmentation: Tree, views: Any) -> Iterator[str]:
    key = f"phase.{phase}.augmentation.views"
    if views is None:
        return
    if augmentation.get("name") == "none":
        yield f"{key}: without an augmentation there is one view, the plain image"
    elif views not in ("fresh", "auto") and (type(views) is not int or views < 1):
        yield f'{key}: must be a whole number from 1, "fresh" or "auto", and is {toml(views)}'


def _order_problems(phases: Sequence[Phase], names: Sequence[str]) -> Iterator[str]:
    """What is wrong with the phases as a sequence; `names` are those of all, also of unreadable ones."""
    for name, count in Counter(names).items():
        if count > 1:
            yield f"phase.{name}: there are {count} phases of this name"
    known = {phase.name: phase for phase in phases}
    for phase in phases:
        place = names.index(phase.name)
        start, key = phase.start_from, f"phase.{phase.name}.start_from"
        if not isinstance(start, str):  # there is none, or it was said already
            continue
        if start not in names:
            hint = close_matches(start, names) or f"; there are {', '.join(names)}"
            yield f"{key}: there is no phase {start!r}{hint}"
        elif start == phase.name:
            yield f"{key}: a phase cannot start from itself"
        elif start not in names[:place]:
            yield f"{key}: {start!r} comes later: move it in front of {phase.name!r}"
        else:
            before = known.get(start, phase)
            for part in ("backbone", "head"):
                one, other = getattr(before, part), getattr(phase, part)
                if one != other:
                    yield f"{key}: {start!r} has another {part} ({one.table()}, here {other.table()})"
