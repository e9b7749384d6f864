"""The tables of a recipe as they are written, and the errors about them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, model_validator

from tlkit.errors import close_matches
from tlkit.parts.task import Task
from tlkit.recipe.reader import PARTS, Tree

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")]
Fraction = Annotated[float, Field(gt=0, lt=1)]
#: A number of images, epochs, views or seconds: more than anyone has.
Count = Annotated[int, Field(ge=1, le=10**9)]
#: Image sizes in pixels, and what becomes of pixels, within what a network can be meant for.
ImageSize = Annotated[int, Field(ge=1, le=4096)]
CropFraction = Annotated[float, Field(ge=0.1, le=1)]
Mean = Annotated[float, Field(ge=-1e4, le=1e4)]
Std = Annotated[float, Field(ge=1e-4, le=1e4)]
Location = Annotated[Path, BeforeValidator(lambda value: Path(value) if isinstance(value, str) else value)]
#: What the epochs of a phase are compared by, on the validation images.
Monitor = Literal["accuracy", "balanced_accuracy", "loss", "mean_average_precision"]
#: Experiment trackers.
Tracker = Literal["tensorboard", "mlflow", "wandb"]
_OPTIMIZER: Tree = {"name": "adamw", "lr": 1e-3}
#: What every recipe inherits by its task, so that a table without a name has something to merge into.
DEFAULTS: dict[Task, Tree] = {
    "multiclass": {
        "head": "linear",
        "training": {"loss": {"name": "cross-entropy"}, "optimizer": _OPTIMIZER},
    },
    "multilabel": {
        "head": "linear",
        "training": {
            "loss": {"name": "binary-cross-entropy"},
            "optimizer": _OPTIMIZER,
            "monitor": "mean_average_precision",
            "class_weights": "none",
        },
    },
}
#: In TOML's words what pydantic says in Python's.
MESSAGES = {
    "int_type": "must be a whole number",
    "float_type": "must be a number",
    "bool_type": "must be true or false",
    "string_type": "must be a string",
    "list_type": "must be a list",
    "model_type": "must be a table",
    "is_instance_of": "must be a path",
    "string_pattern_mismatch": "must begin with a letter or digit and hold only letters, digits, - and _",
}


class Spec(BaseModel):
    """Base of the tables: unknown keys and values of another type are errors."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class PartSpec(BaseModel):
    """A part's name and options, as a recipe gives them."""

    model_config = ConfigDict(frozen=True)

    name: str
    options: dict[str, Any] = {}

    @classmethod
    def of(cls, table: str | Mapping[str, Any]) -> PartSpec:
        """Makes it from a name alone, or from a table with a name."""
        if isinstance(table, str):
            return cls(name=str(table))
        options = {key: value for key, value in table.items() if key != "name"}
        return cls(name=str(table["name"]), options=options)

    def table(self) -> dict[str, Any]:
        """Returns it as a recipe's table."""
        return {"name": self.name, **self.options}


def _part_table(value: Any) -> Any:
    if not isinstance(value, str | dict):
        raise ValueError("must be a name or a table")
    if isinstance(value, dict) and not isinstance(value.get("name", ""), str):
        raise ValueError(f"its name must be a string, and is {to_toml_value(value['name'])}")
    return value


def _part(value: Any) -> Any:
    if isinstance(value, PartSpec):
        return value
    if isinstance(_part_table(value), dict) and "name" not in value:
        raise ValueError("needs a name")
    return PartSpec.of(value)


def _pattern(value: Any) -> Any:
    try:
        return re.compile(value).pattern if isinstance(value, str) else value
    except re.error as error:
        raise ValueError(f"must be a regular expression ({error})") from error


Table = Annotated[Any, BeforeValidator(_part_table)]
#: A part, written as a name or as a table with a name.
PartTable = Annotated[PartSpec, BeforeValidator(_part), PlainSerializer(PartSpec.table)]


class PerClass(Spec):
    """Numbers of images per class in each split."""

    train: Count
    val: Count
    test: Count


class Fractions(Spec):
    """Fractions of the images for validation and test; the rest is for training."""

    val: Fraction = 0.15
    test: Fraction = 0.15


class DataSpec(Spec):
    """Where labelled images come from and how they are split.

    Attributes:
        source: the source that finds them.
        root: their folder; a source that generates its images needs none.
        per_class: numbers of images per class in each split; None: by `fractions`, or the source's splits.
        fractions: used where neither `per_class` nor the source determines the splits.
        splits: a CSV file with columns ``image`` and ``split`` (train, val or test), in place of drawn splits
            and of the source's; a run folder's splits.csv is one.
        folds: number of folds of a cross-validation, in place of validation images; the source's test images
            stay test images.
        repeats: how many times the folds are drawn for phases that train no part of a backbone; the others
            use the first draw.
        group: a regular expression; images whose ids have the same match, or the same first group in it, stay
            in the same fold. None: those of the source's groups do, if it has any.
        unlabelled: a folder of images without labels.
        on_unreadable: "stop" the run, or "skip" and list images that cannot be used.
        corrections: a file of decisions, as `tlkit review` writes it, that changes labels and leaves out
            images.
    """

    source: PartTable
    root: Location | None = None
    per_class: PerClass | None = None
    fractions: Fractions = Fractions()
    splits: Location | None = None
    folds: Annotated[int, Field(ge=2, le=100)] | None = None
    repeats: Annotated[int, Field(ge=1, le=100)] = 1
    group: Annotated[str, BeforeValidator(_pattern)] | None = None
    unlabelled: Location | None = None
    on_unreadable: Literal["stop", "skip"] = "stop"
    corrections: Location | None = None

    @model_validator(mode="after")
    def _has_one_division(self) -> Self:
        drawn = {"per_class", "fractions"} & self.model_fields_set
        if self.folds is not None and drawn:
            raise ValueError(f"folds and {min(drawn)} exclude each other: with folds, no split is drawn")
        if self.splits is not None and drawn:
            raise ValueError(f"splits and {min(drawn)} exclude each other: the file says what is in a split")
        if self.folds is None and (alone := {"repeats", "group"} & self.model_fields_set):
            raise ValueError(f"{min(alone)} belongs to a cross-validation: set folds, too")
        return self

    def source_options(self) -> dict[str, Any]:
        """Returns the options that the source is made with."""
        unlabelled = {} if self.unlabelled is None else {"unlabelled": self.unlabelled}
        return {**self.source.options, **unlabelled}


class TrainingSpec(Spec):
    """How a phase trains.

    Attributes:
        epochs: maximum number of passes over the training images.
        batch_size: images per step.
        precision: "float32", "bfloat16", or "auto": bfloat16 where the hardware computes in it.
        optimizer: a name that timm.optim knows, and its options.
        schedule: a name that timm.scheduler knows, and its options; None: a constant learning rate.
        patience: number of epochs without improvement on validation after which training stops.
        monitor: what the best epoch is chosen by on the validation images, and patience counts.
        class_weights: "balanced" gives classes with fewer images more weight in the loss.
        loss: what is minimised.
        mixup: alpha of mixup (Zhang et al. 2018); 0: no mixup. Where features are cached, they are mixed
            (manifold mixup, Verma et al. 2019).
        cutmix: alpha of CutMix (Yun et al. 2019); 0: no CutMix. With both, each has half of the batches.
        clip_grad: the largest norm of all gradients together; 0: they are not clipped.
        ema: decay of the exponential moving average of the weights, which is validated and kept in their
            place; 0: no average.
        keep: the weights of the "best" epoch by `monitor`, or of the "last" one.
        mirror: whether logits are the mean over an image and its mirror image, in evaluation and prediction;
            heads that fit themselves do so to the mean features of both.
    """

    epochs: Annotated[int, Field(ge=0, le=1_000_000)] = 30
    batch_size: Count = 32
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    optimizer: PartTable = PartSpec(name="adamw", options={"lr": 1e-3})
    schedule: PartTable | None = None
    patience: Count | None = None
    monitor: Monitor = "accuracy"
    class_weights: Literal["balanced", "none"] = "balanced"
    loss: PartTable = PartSpec(name="cross-entropy")
    mixup: Annotated[float, Field(ge=0)] = 0.0
    cutmix: Annotated[float, Field(ge=0)] = 0.0
    clip_grad: Annotated[float, Field(ge=0)] = 0.0
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.0
    keep: Literal["best", "last"] = "best"
    mirror: bool = False


class PreprocessSpec(Spec):
    """Overrides of the backbone's own preprocessing; see `tlkit.Preprocess`."""

    size: ImageSize | None = None
    resize: Literal["crop", "squash", "pad"] | None = None
    crop: CropFraction | None = None
    interpolation: Literal["nearest", "bilinear", "bicubic", "lanczos"] | None = None
    mean: Annotated[list[Mean], Field(min_length=3, max_length=3)] | None = None
    std: Annotated[list[Std], Field(min_length=3, max_length=3)] | None = None


class FeaturesSpec(Spec):
    """Whether the outputs of the frozen prefix are cached."""

    cache: bool = True


class TrackSpec(Spec):
    """The experiment trackers that a run is sent to."""

    trackers: list[Tracker] = Field(default=[], alias="with")


class ComputeSpec(Spec):
    """Where the frozen pass runs.

    Attributes:
        engine: the engine whose workers compute features; None: the process that runs the recipe.
    """

    engine: PartTable | None = None


class PhaseSpec(TrainingSpec):
    """A [[phase]] as written; what is left out is inherited from the recipe's tables."""

    name: Name
    backbone: Table = None
    preprocess: PreprocessSpec = PreprocessSpec()
    head: Table = None
    features: FeaturesSpec = FeaturesSpec()
    freeze: Table = "backbone"
    augmentation: Table = "none"
    start_from: str | None = None
    statistics: Literal["learn", "keep"] | None = None
    # parts without a name merge into the inherited table, so none is required here
    optimizer: Table = None
    schedule: Table = None
    loss: Table = None


class RecipeSpec(Spec):
    """A whole recipe as written."""

    name: Name
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 1
    goal: Annotated[float, Field(gt=0, le=1)] | None = None
    reject_below: Fraction | None = None
    task: Task = "multiclass"
    data: DataSpec
    backbone: Table = None
    preprocess: PreprocessSpec = PreprocessSpec()
    head: Table = "linear"
    features: FeaturesSpec = FeaturesSpec()
    training: TrainingSpec = TrainingSpec()
    track: TrackSpec = TrackSpec()
    compute: ComputeSpec = ComputeSpec()
    phase: Annotated[list[PhaseSpec], Field(min_length=1)]


def describe_error(item: Mapping[str, Any], tree: Tree) -> str:
    """Formats one of pydantic's errors as a line that begins with the file's own key."""
    location, kind, value = item["loc"], item["type"], item["input"]
    key = ".".join(_names(location, tree))
    if location == ("phase",):
        return f"{key}: a recipe needs at least one phase, written as [[phase]]"
    if kind == "extra_forbidden":
        known = _known_keys(location)
        hint = close_matches(str(location[-1]), known) or f"; known here: {', '.join(sorted(known))}"
        return f"{key}: is unknown{hint}"
    if kind == "missing":
        return f"{key}: is missing"
    if kind in ("too_short", "too_long"):
        return f"{key}: must have 3 values, one per channel, and has {len(value)}"
    original = item["msg"].removeprefix("Value error, ").replace("Input should be ", "must be ")
    message = MESSAGES.get(kind, original)
    return (
        f"{key}: {message}" if isinstance(value, dict) else f"{key}: {message}, and is {to_toml_value(value)}"
    )


def to_toml_value(value: Any) -> str:
    """Formats a value as TOML writes it."""
    return json.dumps(value, default=str, ensure_ascii=False)


def flatten(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yields a recipe's dotted keys and values; a phase is named, and a part has its name as a key."""
    for key, value in tree.items():
        if key == "phase":
            for row in value:
                yield from flatten(row, f"phase.{row['name']}.")
        elif isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            named = key in PARTS and isinstance(value, str)
            yield f"{prefix}{key}.name" if named else prefix + key, value


def _names(location: Sequence[Any], tree: Tree) -> Iterator[str]:
    for index, key in enumerate(location):
        if isinstance(key, int) and index and location[index - 1] == "phase":
            row = tree["phase"][key]
            key = row.get("name", key + 1) if isinstance(row, dict) else key + 1
        yield str(key)


def _known_keys(location: Sequence[Any]) -> list[str]:
    """Returns the keys that the table at `location` may have."""
    tables: dict[str, type[BaseModel]] = {
        "data": DataSpec,
        "per_class": PerClass,
        "fractions": Fractions,
        "preprocess": PreprocessSpec,
        "features": FeaturesSpec,
        "training": TrainingSpec,
        "track": TrackSpec,
        "compute": ComputeSpec,
        "phase": PhaseSpec,
    }
    enclosing = [key for key in location[:-1] if isinstance(key, str) and key in tables]
    fields = (tables[enclosing[-1]] if enclosing else RecipeSpec).model_fields
    known = [field.alias or name for name, field in fields.items()]
    return known if enclosing else [*known, "extends"]
