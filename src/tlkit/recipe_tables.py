"""The tables of a recipe as they are written, and what is said when one is wrong."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from tlkit.errors import close_matches
from tlkit.recipe_file import Tree

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
        raise ValueError(f"its name must be a text, and is {toml(value['name'])}")
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
        root: their folder; a source that makes its images itself needs none.
        per_class: images of each class in each split; None: by `fractions`, or as the source says.
        fractions: used where neither `per_class` nor the source says anything.
        unlabelled: a folder of images without labels.
        on_unreadable: "stop" the run, or "skip" and list images that cannot be used.
    """

    source: PartTable
    root: Location | None = None
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
    reject_below: Fraction | None = None
    data: Data
    backbone: Table = None
    preprocess: PreprocessTable = PreprocessTable()
    head: Table = DEFAULTS["head"]
    features: FeaturesTable = FeaturesTable()
    training: Training = Training()
    phase: Annotated[list[PhaseTable], Field(min_length=1)]


def say(item: Mapping[str, Any], tree: Tree) -> str:
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
    return f"{key}: {message}" if isinstance(found, dict) else f"{key}: {message}, and is {toml(found)}"


def toml(value: Any) -> str:
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
