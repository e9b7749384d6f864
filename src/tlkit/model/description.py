"""What a model folder's config.json says; reading it does not load torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, Field, model_validator

from tlkit.errors import RunFolderError
from tlkit.model.limits import check_options
from tlkit.model.plugins import Plugins
from tlkit.parts.backbone import WeightsOrigin
from tlkit.parts.preprocess import Interpolation, Preprocess, Resize
from tlkit.recipe.schema import CropFraction, Fraction, ImageSize, Mean, PartSpec, PartTable, Std
from tlkit.utils.json_files import JsonModel, Proportion, content_sha256, parse_json, read_text

#: The version of config.json's form.
FORMAT = 1
#: Where config.json has its own checksum.
CHECKSUM_KEY = ("tlkit", "config_sha256")


class Calibration(JsonModel):
    """How logits become answers.

    Attributes:
        temperature: logits are divided by it before the softmax.
        reject_below: confidence below which an image stays unclassified, or None.
        mirror: whether logits are the mean over an image and its mirror image.
        thresholds: of the classes' sigmoids, where an image may have several labels; None: it has one.
    """

    temperature: Annotated[float, Field(ge=1e-3, le=1e3)]
    reject_below: Fraction | None = None
    mirror: bool = False
    thresholds: tuple[Proportion, ...] | None = None


ClassName = Annotated[str, Field(min_length=1, max_length=1000)]


def _distinct(classes: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(classes)) < len(classes):
        twice = next(name for index, name in enumerate(classes) if name in classes[:index])
        raise ValueError(f"{twice!r} appears twice")
    return classes


#: The names of the classes, all different, in the order of the logits.
Classes = Annotated[tuple[ClassName, ...], Field(min_length=1), AfterValidator(_distinct)]


def _bounded(part: PartSpec) -> PartSpec:
    check_options(part.options)
    return part


def check_thresholds(calibration: Calibration, classes: Sequence[str]) -> None:
    """Raises ValueError unless there is a threshold for each class, if there are any."""
    thresholds = calibration.thresholds
    if thresholds is not None and len(thresholds) != len(classes):
        raise ValueError(f"thresholds: there are {len(thresholds)} thresholds and {len(classes)} classes")
    if thresholds is not None and calibration.reject_below is not None:
        raise ValueError("reject_below: is for one label per image, and thresholds are for several")


class PreprocessDescription(JsonModel):
    """The preprocessing that images need; see `tlkit.Preprocess`."""

    size: ImageSize
    resize: Resize
    crop: CropFraction
    interpolation: Interpolation
    mean: tuple[Mean, Mean, Mean]
    std: tuple[Std, Std, Std]

    def to_preprocess(self) -> Preprocess:
        """Returns it as the part that preprocesses images."""
        return Preprocess(**self.model_dump())


class UnknownDescription(JsonModel):
    """The table ``tlkit.unknown`` of a model folder's config.json.

    Attributes:
        threshold: the novelty above which an image is called unknown.
        wrong_alarms: the part of images of the known classes that this threshold was chosen to call unknown.
        sha256: checksum of unknown.safetensors.
    """

    threshold: Annotated[float, Field(ge=-2, le=2)]
    wrong_alarms: Fraction
    sha256: str


class ModelDescription(JsonModel):
    """The table ``tlkit`` of a model folder's config.json.

    Attributes:
        format: version of the file's format.
        backbone: the backbone's recipe table, without weights.
        head: the head's recipe table.
        preprocess: the preprocessing that images need.
        classes: class names in the order of the logits.
        classifier_layer: timm's name of the last layer, where timm can load the folder; else None.
        calibration: how logits become answers.
        unknown: when an image belongs to none of the classes; None: that is not told.
        weights: where the pretrained weights that training started with come from; None: unknown, or random.
        versions: of the libraries that it was trained with.
        plugins: the distributions that its parts come from, besides tlkit.
        sha256: checksum of model.safetensors.
        config_sha256: checksum of what config.json has besides this key.
    """

    format: int
    backbone: Annotated[PartTable, AfterValidator(_bounded)]
    head: Annotated[PartTable, AfterValidator(_bounded)]
    preprocess: PreprocessDescription
    classes: Classes
    classifier_layer: str | None = None
    calibration: Calibration
    unknown: UnknownDescription | None = None
    weights: WeightsOrigin | None = None
    versions: dict[str, str]
    plugins: Plugins = Field(default={})
    sha256: str
    config_sha256: str = ""

    @model_validator(mode="after")
    def _has_thresholds_for_its_classes(self) -> Self:
        check_thresholds(self.calibration, self.classes)
        return self


class ModelConfig(JsonModel):
    """A model folder's config.json: timm's keys, where timm can load the folder, and tlkit's own table."""

    architecture: str | None = None
    num_classes: int | None = None
    model_args: dict[str, Any] | None = None
    pretrained_cfg: dict[str, Any] | None = None
    tlkit: ModelDescription


def read_config(folder: Path) -> ModelConfig:
    """Reads a model folder's config.json.

    Raises:
        RunFolderError: it is missing, has the wrong form, or was written by a newer tlkit.
    """
    path = folder / "config.json"
    if not path.is_file():
        raise RunFolderError(f"{folder} is not a model folder: it has no config.json")
    text = read_text(path, RunFolderError)
    if parse_json(text, _FormatOnly, RunFolderError, str(path)).tlkit.format > FORMAT:
        raise RunFolderError(f"{folder} was made by a newer tlkit than this one: update tlkit")
    config = parse_json(text, ModelConfig, RunFolderError, str(path))
    if content_sha256(text, *CHECKSUM_KEY) != config.tlkit.config_sha256:
        raise RunFolderError(f"{path} is not as tlkit wrote it: tlkit.config_sha256 differs")
    return config


class _Format(BaseModel):
    format: int


class _FormatOnly(BaseModel):
    """The key that says whether this tlkit knows the others."""

    tlkit: _Format
