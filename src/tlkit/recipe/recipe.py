"""A parsed recipe: the data, the phases, and how each of them trains.

It knows neither plugins nor optimisers: `tlkit.experiment.validation` checks the parts that it names.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar, cast

import tomli_w
from pydantic import BaseModel, ValidationError

from tlkit.errors import RecipeError, close_matches
from tlkit.parts.task import Task
from tlkit.recipe.reader import Tree, is_same, merge, merge_part, plain, read_tree
from tlkit.recipe.schema import (
    DEFAULTS,
    ComputeSpec,
    DataSpec,
    PartSpec,
    PreprocessSpec,
    RecipeSpec,
    Tracker,
    TrackSpec,
    TrainingSpec,
    describe_error,
    to_toml_value,
)
from tlkit.recipe.task import task_problems

Model = TypeVar("Model", bound=BaseModel)
#: Of one image. More of them are no better than fresh ones, and each has features in the store.
MAX_VIEWS = 1000
Views = int | Literal["fresh", "auto"]


@dataclass(frozen=True)
class Phase:
    """One row of a recipe, with all that it inherits.

    Attributes:
        name: the phase's, also of its folder.
        backbone: the pretrained network.
        preprocess: overrides of the backbone's own preprocessing.
        head: the head on top of the backbone.
        freeze: the freeze policy, which says which parameters are trainable.
        augmentation: the random changes applied to training images.
        views: the number of versions of each training image, used in turn; "fresh" draws a new one every
            epoch; "auto" is eight where they cost less than that and fit in the cache.
        start_from: the earlier phase whose weights it starts from.
        statistics: whether batch norms update their statistics; None: only where the whole backbone is
            trainable.
        cache_features: whether the outputs of the frozen prefix are cached.
        training: how it trains.
    """

    name: str
    backbone: PartSpec
    preprocess: Mapping[str, Any]
    head: PartSpec
    freeze: PartSpec
    augmentation: PartSpec
    views: Views
    start_from: str | None
    statistics: Literal["learn", "keep"] | None
    cache_features: bool
    training: TrainingSpec


@dataclass(frozen=True)
class Recipe:
    """An experiment: data, and phases in the order they run.

    Attributes:
        name: the experiment's.
        seed: of splits, order, augmentation, dropout and new weights.
        goal: accuracy that the last phase must reach on the test images; with several labels per image, mean
            average precision.
        reject_below: confidence below which a classifier answers "unclassified".
        data: where images come from.
        phases: the phases, in order.
        trackers: the experiment trackers that runs are sent to.
        task: "multiclass", one label per image, or "multilabel", any number of them.
        engine: the engine that computes features; None: the process that runs the recipe.
        path: the file it was read from.
        tree: its tables, with `extends` followed, overrides applied, and paths absolute.
        flaws: what is wrong with the file itself; a recipe with flaws must not be run.
    """

    name: str
    seed: int
    goal: float | None
    reject_below: float | None
    data: DataSpec | None
    phases: tuple[Phase, ...]
    trackers: tuple[Tracker, ...] = ()
    task: Task = "multiclass"
    engine: PartSpec | None = None
    path: Path | None = field(default=None, compare=False)
    tree: Tree = field(default_factory=dict, compare=False, repr=False)
    flaws: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """How error messages call it: its file, or its name."""
        return str(self.path or self.name)

    def phase(self, name: str) -> Phase:
        """Returns the phase of that name.

        Raises:
            RecipeError: there is none.
        """
        names = [phase.name for phase in self.phases]
        if name not in names:
            hint = close_matches(name, names) or f"; there are {', '.join(names)}"
            raise RecipeError([f"there is no phase {name!r}{hint}"], recipe=self.label)
        return self.phases[names.index(name)]

    def to_toml(self) -> str:
        """Returns the recipe as one TOML file: nothing to extend, nothing to set, paths absolute."""
        return tomli_w.dumps(plain(self.tree))

    def is_same_as(self, toml: str) -> bool:
        """Returns whether the text of a recipe file is this recipe; its table ``compute`` may differ."""
        return is_same(plain(self.tree), toml)


def read_recipe(path: Path, overrides: Mapping[str, Any] | Sequence[str] = ()) -> Recipe:
    """Reads a recipe and everything that it extends.

    Args:
        path: the file, or a folder that holds ``recipe.toml``.
        overrides: keys to set, as ``{"dotted.key": value}`` or ``["dotted.key=value"]``.

    Raises:
        RecipeError: everything that is wrong with it, at once.
    """
    recipe = draft_recipe(path, overrides)
    if recipe.flaws:
        raise RecipeError(recipe.flaws, recipe=recipe.label)
    return recipe


def draft_recipe(path: Path, overrides: Mapping[str, Any] | Sequence[str] = ()) -> Recipe:
    """Reads a recipe as `read_recipe` does, but collects mistakes in `Recipe.flaws`.

    More can then be checked before all mistakes are reported together. What cannot be read is left out:
    phases, or keys of the data's table.
    """
    file = path / "recipe.toml" if path.is_dir() else path
    return make_recipe(read_tree(path, overrides), file)


def as_recipe(recipe: Recipe | Path | str, overrides: Mapping[str, Any] | Sequence[str] = ()) -> Recipe:
    """Returns a recipe that was read before, or drafts it from its file; see `draft_recipe`.

    Raises:
        RecipeError: it was read before, so that `overrides` come too late, or its file cannot be read.
    """
    if not isinstance(recipe, Recipe):
        return draft_recipe(Path(recipe), overrides)
    if overrides:
        problem = "overrides: this recipe was read already: set them with tlkit.read_recipe(FILE, overrides)"
        raise RecipeError([problem], recipe=recipe.label)
    return recipe


def make_recipe(tables: Tree, file: Path | None = None) -> Recipe:
    """Makes a recipe of TOML's plain tables, with paths absolute; mistakes are in `Recipe.flaws`."""
    task: Task = "multilabel" if tables.get("task") == "multilabel" else "multiclass"
    tree = merge(DEFAULTS[task], tables)
    flaws: list[str] = []
    try:
        RecipeSpec.model_validate(tree)
    except ValidationError as error:
        flaws = [describe_error(dict(item), tree) for item in error.errors()]
    rows = [row for row in _tables(tree.get("phase")) if isinstance(row.get("name"), str)]
    phases = [phase for row in rows if (phase := _resolve_phase(tree, row, flaws)) is not None]
    flaws += _order_problems(phases, [row["name"] for row in rows])
    flaws += task_problems(task, tree, phases)
    data = _valid_part_of(DataSpec, tree.get("data"))
    track = _valid_part_of(TrackSpec, tree.get("track"))
    compute = _valid_part_of(ComputeSpec, tree.get("compute"))
    if data is not None and data.fractions.val + data.fractions.test >= 1:
        flaws.append("data.fractions: val and test leave nothing to train on")
    return Recipe(
        name=str(tree.get("name")),
        seed=tree.get("seed", 1),
        goal=tree.get("goal"),
        reject_below=tree.get("reject_below"),
        data=data,
        phases=tuple(phases),
        task=task,
        trackers=tuple(track.trackers) if track else (),
        engine=compute.engine if compute else None,
        path=file,
        tree=tree,
        flaws=tuple(dict.fromkeys(flaws)),
    )


def _resolve_phase(tree: Tree, row: Tree, problems: list[str]) -> Phase | None:
    """Adds to a phase's row what it inherits; None if too much is wrong, which is then in `problems`."""
    name = row["name"]
    network = _resolve_network(tree, row, problems)
    training = _resolve_training(tree, row, problems)
    augmentation = _resolve_augmentation(row, problems)
    freeze = _named(row.get("freeze", "backbone"), f"phase.{name}.freeze", problems)
    if network is None or training is None or augmentation is None or freeze is None:
        return None
    overrides = merge(_table(tree.get("preprocess")), _table(row.get("preprocess")))
    preprocess = _valid_part_of(PreprocessSpec, overrides)
    part, views = augmentation
    return Phase(
        name=name,
        backbone=network["backbone"],
        preprocess=preprocess.model_dump(exclude_none=True) if preprocess else {},
        head=network["head"],
        freeze=freeze,
        augmentation=part,
        views=views,
        start_from=row.get("start_from"),
        statistics=row.get("statistics"),
        cache_features={**_table(tree.get("features")), **_table(row.get("features"))}.get("cache", True),
        training=training,
    )


def _resolve_network(tree: Tree, row: Tree, problems: list[str]) -> dict[str, PartSpec] | None:
    """Returns a phase's backbone and head."""
    parts: dict[str, PartSpec] = {}
    for kind in ("backbone", "head"):
        table = merge_part(tree.get(kind), row.get(kind, {}))
        if isinstance(table, dict) and "name" not in table:
            problems.append(f"phase.{row['name']}.{kind}: no {kind} is named, neither here nor in [{kind}]")
            return None
        if not _is_part(table):
            return None
        parts[kind] = PartSpec.of(table)
    return parts


def _resolve_training(tree: Tree, row: Tree, problems: list[str]) -> TrainingSpec | None:
    """Returns how a phase trains: its own keys over those of [training]."""
    own = {key: row[key] for key in TrainingSpec.model_fields if key in row}
    merged = merge(_table(tree["training"]), own)
    schedule = merged.get("schedule")
    # the schema accepts this, since the phase's table could merge into one of [training]; there is none
    if "schedule" in own and isinstance(schedule, dict) and "name" not in schedule:
        problems.append(f"phase.{row['name']}.schedule: needs a name")
    return _valid_part_of(TrainingSpec, merged)


def _resolve_augmentation(row: Tree, problems: list[str]) -> tuple[PartSpec, Views] | None:
    """Returns a phase's augmentation and the number of its views."""
    written = row.get("augmentation", "none")
    if not _is_part(written):
        return None
    table = {"name": written} if isinstance(written, str) else dict(written)
    views = table.pop("views", None)
    problems += _view_problems(row["name"], table, views)
    part = _named(table, f"phase.{row['name']}.augmentation", problems)
    if part is None:
        return None
    return part, cast(Views, views) or (1 if part.name == "none" else "fresh")


def _named(table: Any, key: str, problems: list[str]) -> PartSpec | None:
    """Returns a part that must be named where it is written."""
    if not _is_part(table):
        return None
    if not isinstance(table, str) and "name" not in table:
        problems.append(f"{key}: needs a name")
        return None
    return PartSpec.of(table)


def _is_part(value: Any) -> bool:
    """Returns whether a value can describe a part; if not, the schema has reported it."""
    return isinstance(value, str) or (isinstance(value, dict) and isinstance(value.get("name", ""), str))


def _table(value: Any) -> Tree:
    return value if isinstance(value, dict) else {}


def _tables(value: Any) -> list[Tree]:
    return [row for row in value if isinstance(row, dict)] if isinstance(value, list) else []


def _valid_part_of(kind: type[Model], table: Any) -> Model | None:
    """Parses a table without the keys that are wrong; None if too little is left."""
    wrong: set[Any] = set()
    for _ in range(2):
        try:
            return kind.model_validate(
                {key: value for key, value in (table or {}).items() if key not in wrong}
            )
        except ValidationError as error:
            wrong = {item["loc"][0] for item in error.errors() if item["loc"]}
        except AttributeError:  # not a table
            break
    return None


def _view_problems(phase: str, augmentation: Tree, views: Any) -> Iterator[str]:
    key = f"phase.{phase}.augmentation.views"
    if views is None:
        return
    if augmentation.get("name") == "none":
        yield f"{key}: without an augmentation there is one view, the plain image"
    elif views not in ("fresh", "auto") and (type(views) is not int or not 1 <= views <= MAX_VIEWS):
        expected = f'a whole number from 1 to {MAX_VIEWS}, "fresh" or "auto"'
        yield f"{key}: must be {expected}, and is {to_toml_value(views)}"


def _order_problems(phases: Sequence[Phase], names: Sequence[str]) -> Iterator[str]:
    """Yields what is wrong with the sequence of phases; `names` includes those that could not be read."""
    for name, count in Counter(names).items():
        if count > 1:
            yield f"phase.{name}: there are {count} phases of this name"
    phases_by_name = {phase.name: phase for phase in phases}
    for phase in phases:
        index = names.index(phase.name)
        start, key = phase.start_from, f"phase.{phase.name}.start_from"
        if not isinstance(start, str):  # None, or reported by the schema
            continue
        if start not in names:
            hint = close_matches(start, names) or f"; there are {', '.join(names)}"
            yield f"{key}: there is no phase {start!r}{hint}"
        elif start == phase.name:
            yield f"{key}: a phase cannot start from itself"
        elif start not in names[:index]:
            yield f"{key}: {start!r} comes later: move it in front of {phase.name!r}"
        else:
            before = phases_by_name.get(start, phase)
            for kind in ("backbone", "head"):
                one, other = getattr(before, kind), getattr(phase, kind)
                if one != other:
                    yield f"{key}: {start!r} has another {kind} ({one.table()}, here {other.table()})"
