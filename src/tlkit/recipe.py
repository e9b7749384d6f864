"""What a recipe says: the data, the phases, and how each of them trains.

The parsed recipe knows no plugins: `Recipe.problems` checks parts and their options against a registry.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol, TypeVar, cast

import tomli_w
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from tlkit.errors import RecipeError, close_matches
from tlkit.optimisation import optimizer_problems, schedule_problems
from tlkit.recipe_file import Tree, merge, merge_part, plain, read_tree

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")]
Fraction = Annotated[float, Field(gt=0, lt=1)]
Count = Annotated[int, Field(ge=1)]
Location = Annotated[Path, BeforeValidator(lambda value: Path(value) if isinstance(value, str) else value)]
#: What stands above every recipe, so that a table without a name has something to merge into.
DEFAULTS: Tree = {"head": "linear", "training": {"optimizer": {"name": "adamw", "lr": 1e-3}}}
#: What is due where pydantic speaks of Python.
DUE = {
    "int_type": "must be a whole number",
    "float_type": "must be a number",
    "bool_type": "must be true or false",
    "string_type": "must be a text",
    "list_type": "must be a list",
    "model_type": "must be a table",
    "is_instance_of": "must be a path",
    "string_pattern_mismatch": "must begin with a letter or digit and hold only letters, digits, - and _",
}
Model = TypeVar("Model", bound=BaseModel)


class Registry(Protocol):
    """What knows the parts."""

    def problems(self, kind: str, name: str, given: Mapping[str, Any], /) -> list[tuple[str, str]]:
        """What is wrong with a part's name and options: (option, or "name", and a message)."""


class Checked(BaseModel):
    """A table of a recipe: no unknown keys, no value taken for another type."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Part(BaseModel):
    """A part by its name, and its options."""

    model_config = ConfigDict(frozen=True)

    name: str
    options: dict[str, Any] = {}

    @classmethod
    def of(cls, table: str | Mapping[str, Any]) -> Part:
        """From a name alone, or a table with a name."""
        if isinstance(table, str):
            return cls(name=str(table))
        options = {key: value for key, value in table.items() if key != "name"}
        return cls(name=str(table["name"]), options=options)

    def table(self) -> dict[str, Any]:
        """As a recipe has it."""
        return {"name": self.name, **self.options}


def _part_table(value: Any) -> Any:
    if not isinstance(value, str | dict):
        raise ValueError("must be a name or a table")
    if isinstance(value, dict) and not isinstance(value.get("name", ""), str):
        raise ValueError(f"its name must be a text, and is {_found(value['name'])}")
    return value


def _part(value: Any) -> Any:
    if isinstance(value, Part):
        return value
    if isinstance(_part_table(value), dict) and "name" not in value:
        raise ValueError("needs a name")
    return Part.of(value)


Table = Annotated[Any, BeforeValidator(_part_table)]
PartTable = Annotated[Part, BeforeValidator(_part)]


class PerClass(Checked):
    """How many images of each class go into each split."""

    train: Count
    val: Count
    test: Count


class Fractions(Checked):
    """Parts of the images that go into validation and test; the rest is for training."""

    val: Fraction = 0.15
    test: Fraction = 0.15


class Data(Checked):
    """Where labelled images come from and how they are divided.

    Attributes:
        source: the part that finds them.
        root: their folder.
        per_class: images of each class in each split; None: by `fractions`, or as the source says.
        fractions: used where neither `per_class` nor the source says anything.
        unlabelled: a folder of images without labels.
        on_unreadable: "stop" the run, or "skip" and list images that cannot be used.
    """

    source: PartTable
    root: Location
    per_class: PerClass | None = None
    fractions: Fractions = Fractions()
    unlabelled: Location | None = None
    on_unreadable: Literal["stop", "skip"] = "stop"

    def source_options(self) -> dict[str, Any]:
        """What the source is made with."""
        given = {} if self.unlabelled is None else {"unlabelled": self.unlabelled}
        return {**self.source.options, **given}


class Training(Checked):
    """How a phase trains.

    Attributes:
        epochs: passes over the training images, at most.
        batch_size: images per step.
        precision: "auto" is bfloat16 where the hardware computes in it.
        optimizer: any that timm.optim knows, and its options.
        schedule: any that timm.scheduler knows, and its options; None: a constant rate.
        patience: stop when validation was no better for so many epochs.
        class_weights: "balanced" gives classes with fewer images more weight in the loss.
    """

    epochs: Annotated[int, Field(ge=0)] = 30
    batch_size: Count = 32
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    optimizer: PartTable = Part(name="adamw", options={"lr": 1e-3})
    schedule: PartTable | None = None
    patience: Count | None = None
    class_weights: Literal["balanced", "none"] = "balanced"


class PreprocessTable(Checked):
    """Settings in place of the backbone's own; see `tlkit.Preprocess`."""

    size: Count | None = None
    resize: Literal["crop", "squash", "pad"] | None = None
    crop: Annotated[float, Field(gt=0, le=1)] | None = None
    interpolation: Literal["nearest", "bilinear", "bicubic", "lanczos"] | None = None
    mean: Annotated[list[float], Field(min_length=3, max_length=3)] | None = None
    std: Annotated[list[Annotated[float, Field(gt=0)]], Field(min_length=3, max_length=3)] | None = None


class FeaturesTable(Checked):
    """Whether what lies in front of the frontier runs once and is kept."""

    keep: bool = True


class PhaseTable(Training):
    """A [[phase]] as written: what is left out comes from the tables above it."""

    name: Name
    backbone: Table = None
    preprocess: PreprocessTable = PreprocessTable()
    head: Table = None
    features: FeaturesTable = FeaturesTable()
    freeze: Table = "backbone"
    augmentation: Table = "none"
    start_from: str | None = None
    statistics: Literal["learn", "keep"] | None = None
    # parts without a name merge into the table above, so here they need none
    optimizer: Table = None
    schedule: Table = None


class RecipeTable(Checked):
    """A recipe as written."""

    name: Name
    seed: int = 1
    goal: Annotated[float, Field(gt=0, le=1)] | None = None
    data: Data
    backbone: Table = None
    preprocess: PreprocessTable = PreprocessTable()
    head: Table = DEFAULTS["head"]
    features: FeaturesTable = FeaturesTable()
    training: Training = Training()
    phase: Annotated[list[PhaseTable], Field(min_length=1)]


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
        views: how many versions of each training image take turns, or "fresh" for a new one each time.
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
    views: int | Literal["fresh"]
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
        data: where images come from.
        phases: what is done, in order.
        path: the file it was read from.
        tree: its tables, with `extends` followed, overrides set, and paths absolute.
        flaws: what was found wrong on reading; a recipe with flaws is not to be run.
    """

    name: str
    seed: int
    goal: float | None
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
        keys = {"unlabelled": "data.unlabelled"}
        found = registry.problems("source", self.data.source.name, self.data.source_options())
        return [f"{keys.get(option, f'data.source.{option}')}: {message}" for option, message in found]

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
    tree = merge(DEFAULTS, read_tree(path, overrides))
    flaws: list[str] = []
    try:
        RecipeTable.model_validate(tree)
    except ValidationError as error:
        flaws = [_say(dict(item), tree) for item in error.errors()]
    rows = [row for row in _tables(tree.get("phase")) if isinstance(row.get("name"), str)]
    phases = [phase for row in rows if (phase := _resolve(tree, row, flaws)) is not None]
    flaws += _order_problems(phases, [row["name"] for row in rows])
    data = _lenient(Data, tree.get("data"))
    if data is not None and data.fractions.val + data.fractions.test >= 1:
        flaws.append("data.fractions: val and test leave nothing to train on")
    goal, seed = tree.get("goal"), tree.get("seed", 1)
    file = path / "recipe.toml" if path.is_dir() else path
    return Recipe(
        str(tree.get("name")), seed, goal, data, tuple(phases), file, tree, tuple(dict.fromkeys(flaws))
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
    elif views != "fresh" and (not isinstance(views, int) or isinstance(views, bool) or views < 1):
        yield f'{key}: must be a whole number from 1, or "fresh", and is {_found(views)}'


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


def _say(item: Mapping[str, Any], tree: Tree) -> str:
    """One of pydantic's errors as a line that begins with the file's own key."""
    place, kind, found = item["loc"], item["type"], item["input"]
    key = ".".join(_names(place, tree))
    if place == ("phase",):
        return f"{key}: a recipe needs at least one phase, written as [[phase]]"
    if kind == "extra_forbidden":
        known = _known_keys(place)
        hint = close_matches(str(place[-1]), known) or f"; known here: {', '.join(sorted(known))}"
        return f"{key}: is unknown{hint}"
    if kind == "missing":
        return f"{key}: is missing"
    if kind in ("too_short", "too_long"):
        return f"{key}: must have 3 values, one per channel, and has {len(found)}"
    said = item["msg"].removeprefix("Value error, ").replace("Input should be ", "must be ")
    message = DUE.get(kind, said)
    return f"{key}: {message}" if isinstance(found, dict) else f"{key}: {message}, and is {_found(found)}"


def _found(value: Any) -> str:
    """A value as TOML would have it."""
    return json.dumps(value, default=str, ensure_ascii=False)


def _names(place: Sequence[Any], tree: Tree) -> Iterator[str]:
    for number, part in enumerate(place):
        if isinstance(part, int) and number and place[number - 1] == "phase":
            row = tree["phase"][part]
            part = row.get("name", part + 1) if isinstance(row, dict) else part + 1
        yield str(part)


def _known_keys(place: Sequence[Any]) -> list[str]:
    """The keys that the table at `place` may hold."""
    tables: dict[str, type[BaseModel]] = {
        "data": Data,
        "per_class": PerClass,
        "fractions": Fractions,
        "preprocess": PreprocessTable,
        "features": FeaturesTable,
        "training": Training,
        "phase": PhaseTable,
    }
    inside = [part for part in place[:-1] if isinstance(part, str) and part in tables]
    known = list((tables[inside[-1]] if inside else RecipeTable).model_fields)
    return known if inside else [*known, "extends"]
