"""Folders of timm's as classifiers: config.json has the architecture, class names and preprocessing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, Field

from tlkit.errors import RunFolderError
from tlkit.model.description import (
    FORMAT,
    Calibration,
    Classes,
    ModelConfig,
    ModelDescription,
    PreprocessDescription,
)
from tlkit.model.limits import check_options
from tlkit.parts.preprocess import TIMM_CROP_MODES, Interpolation
from tlkit.recipe.schema import CropFraction, ImageSize, Mean, PartSpec, Std
from tlkit.utils.hashing import file_sha256
from tlkit.utils.json_files import parse_json, read_text


def _bounded(arguments: dict[str, Any]) -> dict[str, Any]:
    check_options(arguments)
    return arguments


class _PretrainedConfig(BaseModel):
    """The part of timm's ``pretrained_cfg`` that prediction needs."""

    input_size: tuple[Literal[3], ImageSize, ImageSize]
    interpolation: Interpolation
    crop_pct: CropFraction
    crop_mode: Literal["center", "squash", "border"] = "center"
    mean: tuple[Mean, Mean, Mean]
    std: tuple[Std, Std, Std]
    classifier: str
    label_names: Classes | None = None


class _TimmConfig(BaseModel):
    """The part of timm's config.json that prediction needs."""

    architecture: Annotated[str, Field(pattern=r"^\w+$")]
    num_classes: int
    model_args: Annotated[dict[str, Any], AfterValidator(_bounded)] = {}
    label_names: Classes | None = None
    pretrained_cfg: _PretrainedConfig


def is_timm_folder(folder: Path) -> bool:
    """Returns whether a folder's config.json is timm's alone, without tlkit's table."""
    try:
        config = json.loads(read_text(folder / "config.json", RunFolderError))
    except (RunFolderError, ValueError):
        return False
    return isinstance(config, dict) and "architecture" in config and "tlkit" not in config


def read_timm_folder(folder: Path) -> ModelConfig:
    """Describes a folder of timm's as a model folder.

    Raises:
        RunFolderError: it does not say what prediction needs.
    """
    path = folder / "config.json"
    where = f"{path} (read as timm's, since it has no table 'tlkit')"
    config = parse_json(read_text(path, RunFolderError), _TimmConfig, RunFolderError, where)
    pretrained = config.pretrained_cfg
    _, height, width = pretrained.input_size
    classes = config.label_names or pretrained.label_names
    if classes is None or len(classes) != config.num_classes:
        count = "none" if classes is None else f"{len(classes):,}"
        raise RunFolderError(
            f"{path}: label_names must name the {config.num_classes:,} classes in order; it names {count}"
        )
    if height != width:
        raise RunFolderError(
            f"{path}: the network takes {height}x{width} images; only square ones are supported"
        )
    weights = folder / "model.safetensors"
    if not weights.is_file():
        raise RunFolderError(f"{folder} has no model.safetensors")
    options: dict[str, Any] = {"features": "pooled", "weights": "none"}
    if config.model_args:
        options["model_args"] = config.model_args
    resize = {mode: name for name, mode in TIMM_CROP_MODES.items()}[pretrained.crop_mode]
    description = ModelDescription(
        format=FORMAT,
        backbone=PartSpec(name=config.architecture, options=options),
        head=PartSpec(name="linear"),
        preprocess=PreprocessDescription(
            size=height,
            resize=resize,
            crop=pretrained.crop_pct,
            interpolation=pretrained.interpolation,
            mean=pretrained.mean,
            std=pretrained.std,
        ),
        classes=classes,
        classifier_layer=pretrained.classifier,
        calibration=Calibration(temperature=1.0),
        versions={},
        sha256=file_sha256(weights),
    )
    return ModelConfig(tlkit=description)
