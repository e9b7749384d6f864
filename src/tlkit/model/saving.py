"""Saves a trained classifier, with all that prediction needs, as a model folder, and loads it.

A model folder has ``model.safetensors``, ``unknown.safetensors`` (see `tlkit.model.unknown`), and
``config.json`` in timm's own form with one more table, ``tlkit``. A linear head on pooled features is saved
under timm's own names, so plain timm loads it too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from tlkit.errors import RunFolderError, TlkitError
from tlkit.model.building import built_within
from tlkit.model.classifier import Classifier
from tlkit.model.description import (
    CHECKSUM_KEY,
    FORMAT,
    Calibration,
    ModelConfig,
    ModelDescription,
    PreprocessDescription,
    read_config,
)
from tlkit.model.plugins import describe_missing
from tlkit.model.timm_names import own_name, timm_layer, timm_name
from tlkit.model.unknown import UnknownDetector, load_detector, save_detector
from tlkit.parts.backbone import Backbone
from tlkit.parts.initial_values import without_initial_values
from tlkit.parts.preprocess import TIMM_CROP_MODES
from tlkit.recipe.schema import PartSpec
from tlkit.runtime.memory import free_memory
from tlkit.utils.atomic_write import atomic_write
from tlkit.utils.connectivity import offline
from tlkit.utils.formatting import shortlist
from tlkit.utils.hashing import file_sha256
from tlkit.utils.json_files import content_sha256, write_json
from tlkit.utils.regular_files import check_regular

LIBRARIES = ("tlkit", "torch", "timm", "safetensors")


class PartMaker(Protocol):
    """The part of `tlkit.plugins.registry.Registry` that loading a model needs."""

    def make(self, kind: str, name: str, part_options: Mapping[str, Any], *args: Any) -> Any:
        """Makes the part of that kind and name."""

    def check_self_contained(self, kind: str, name: str, part_options: Mapping[str, Any]) -> None:
        """Raises PluginError if making that part would read weights, or files, from elsewhere."""


@dataclass(frozen=True)
class SavedModel:
    """A model folder's content.

    Attributes:
        classifier: the network, in evaluation mode on the CPU.
        backbone: the backbone as it was made, with the preprocessing that images need.
        config: the content of config.json.
        unknown: tells which images belong to none of the classes; None: it has no such threshold.
    """

    classifier: Classifier
    backbone: Backbone
    config: ModelConfig
    unknown: UnknownDetector | None = None

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in the order of the logits."""
        return self.config.tlkit.classes

    @property
    def calibration(self) -> Calibration:
        """How logits become answers."""
        return self.config.tlkit.calibration


def save_model(
    folder: Path,
    classifier: Classifier,
    backbone: Backbone,
    *,
    backbone_table: Mapping[str, Any],
    head_table: Mapping[str, Any],
    classes: Sequence[str],
    calibration: Calibration,
    unknown: UnknownDetector | None = None,
    plugins: Mapping[str, str] | None = None,
) -> None:
    """Writes a model folder; a reader sees the whole folder or none.

    Args:
        folder: the folder; replaced if it exists.
        classifier: the network.
        backbone: the backbone as it was made.
        backbone_table: the recipe's table of the backbone, used where it has no blueprint.
        head_table: the recipe's table of the head.
        classes: names in the order of the logits.
        calibration: how logits become answers.
        unknown: tells which images belong to none of the classes, or None.
        plugins: of the parts; see `Registry.plugins_of`.

    Raises:
        RunFolderError: it cannot be written.
    """
    layer = timm_layer(classifier, backbone)
    state = {
        timm_name(name, layer) if layer else name: value.detach().cpu().contiguous().clone()
        for name, value in classifier.state_dict().items()
    }
    try:
        with atomic_write(folder) as temporary:
            temporary.mkdir()
            weights = temporary / "model.safetensors"
            save_file(state, weights, metadata={"format": "pt"})
            description = ModelDescription(
                format=FORMAT,
                backbone=PartSpec.of(backbone.blueprint or backbone_table),
                head=PartSpec.of(head_table),
                preprocess=PreprocessDescription(**asdict(backbone.preprocess)),
                classes=tuple(classes),
                classifier_layer=layer,
                calibration=calibration,
                unknown=save_detector(temporary, unknown),
                weights=backbone.weights_origin,
                versions={name: version(name) for name in LIBRARIES},
                plugins=dict(plugins or {}),
                sha256=file_sha256(weights),
            )
            config = _config(backbone, classes, layer, description)
            write_json(temporary / "config.json", _signed(config), exclude_none=True, fallback=str)
    except (OSError, SafetensorError) as error:
        raise RunFolderError(f"the model cannot be written to {folder}: {error}") from error


def save_again(folder: Path, saved: SavedModel) -> None:
    """Writes a model that was loaded, as it is now, as another model folder; see `save_model`."""
    description = saved.config.tlkit
    save_model(
        folder,
        saved.classifier,
        saved.backbone,
        backbone_table=description.backbone.table(),
        head_table=description.head.table(),
        classes=saved.classes,
        calibration=saved.calibration,
        unknown=saved.unknown,
        plugins=description.plugins,
    )


def load_model(folder: Path, registry: PartMaker, config: ModelConfig | None = None) -> SavedModel:
    """Loads a model folder.

    Args:
        folder: the folder.
        registry: makes its parts.
        config: what describes it; that in its config.json unless given.

    Raises:
        RunFolderError: it is no model folder, altered, of a newer tlkit, or would read files of others.
    """
    config = config or read_config(folder)
    state = _read_weights(folder, config)
    saved = without_initial_values(
        lambda: _make_parts(folder, registry, config, state), lambda saved: saved.classifier
    )
    saved.backbone.weights_origin = config.tlkit.weights
    saved.classifier.eval()
    return replace(saved, unknown=load_detector(folder, config.tlkit.unknown, saved.backbone))


def _make_parts(
    folder: Path, registry: PartMaker, config: ModelConfig, state: Mapping[str, Tensor]
) -> SavedModel:
    """Makes backbone and head, no larger than their weights, and loads those."""
    description = config.tlkit
    try:
        for kind, part in (("backbone", description.backbone), ("head", description.head)):
            registry.check_self_contained(kind, part.name, part.options)
        with offline(), built_within({name: tuple(value.shape) for name, value in state.items()}):
            backbone = make_backbone(registry, description.backbone, description.preprocess.model_dump())
            part = description.head
            head = registry.make("head", part.name, part.options, backbone, description.classes)
        classifier = Classifier(backbone, head)
    except TlkitError as error:
        missing = describe_missing(description.plugins)
        raise RunFolderError(f"{folder} cannot be loaded: {error}{missing}") from error
    load_state(classifier, state, folder)
    return SavedModel(classifier, backbone, config)


def make_backbone(registry: PartMaker, part: PartSpec, preprocess: Mapping[str, Any]) -> Backbone:
    """Makes the backbone of a recipe's or model's table, with overrides of its own preprocessing."""
    backbone: Backbone = registry.make("backbone", part.name, part.options)
    # a copy, since the shape of the features at another size may be remembered already
    return replace(backbone, preprocess=backbone.preprocess.override(preprocess))


def read_state(folder: Path) -> dict[str, Tensor]:
    """Reads the weights of a model folder, under the classifier's own names.

    Raises:
        RunFolderError: as `load_model`.
    """
    return _read_weights(folder, read_config(folder))


def load_state(classifier: Classifier, state: Mapping[str, Tensor], folder: Path) -> None:
    """Loads the weights of the model folder `folder` into a classifier.

    Raises:
        RunFolderError: they are another network's.
    """
    own = {name: tuple(value.shape) for name, value in classifier.state_dict().items()}
    loaded = {name: tuple(value.shape) for name, value in state.items()}
    try:
        # some heads take over the sizes of their buffers
        classifier.load_state_dict(dict(state))
    except RuntimeError as error:
        wrong = sorted(name for name in own.keys() | loaded.keys() if own.get(name) != loaded.get(name))
        raise RunFolderError(
            f"{folder}: its weights and its config.json do not belong together: {shortlist(wrong, 3)}"
        ) from error


def _read_weights(folder: Path, config: ModelConfig) -> dict[str, Tensor]:
    """Reads the weights under the classifier's own names."""
    weights = folder / "model.safetensors"
    try:
        size, free = check_regular(weights), free_memory(torch.device("cpu"))
        if size > free:
            raise RunFolderError(f"{weights} needs {size:,} bytes of memory, of which {free:,} are free")
        state = load_file(weights)
        checksum = file_sha256(weights)
    except FileNotFoundError as error:
        raise RunFolderError(f"{folder} is not a model folder: it has no model.safetensors") from error
    except (SafetensorError, OSError, ValueError) as error:
        raise RunFolderError(f"{weights} cannot be read: {error}") from error
    if checksum != config.tlkit.sha256:
        raise RunFolderError(f"{weights} is not the file that config.json was written for")
    for name, value in state.items():
        if not value.isfinite().all():
            raise RunFolderError(f"{weights} has weights that are not finite numbers: {name}")
    layer = config.tlkit.classifier_layer
    if layer:
        state = {own_name(name, layer): value for name, value in state.items()}
    return state


def _config(
    backbone: Backbone, classes: Sequence[str], layer: str | None, description: ModelDescription
) -> ModelConfig:
    """Adds timm's keys where timm can load the folder: it needs one linear layer at the end."""
    if backbone.timm_config is None or layer is None:
        return ModelConfig(tlkit=description)
    preprocess = backbone.preprocess
    pretrained = {
        "first_conv": backbone.timm_config["pretrained_cfg"].get("first_conv"),
        "license": backbone.weights_origin.license if backbone.weights_origin else None,
        "custom_load": False,
        "input_size": [3, preprocess.size, preprocess.size],
        "interpolation": preprocess.interpolation,
        "crop_pct": preprocess.crop,
        "crop_mode": TIMM_CROP_MODES[preprocess.resize],
        "mean": list(preprocess.mean),
        "std": list(preprocess.std),
        "num_classes": len(classes),
        "classifier": layer,
        "label_names": list(classes),
    }
    return ModelConfig(
        architecture=backbone.timm_config["architecture"],
        num_classes=len(classes),
        model_args=dict(backbone.timm_config["model_args"]),
        pretrained_cfg=pretrained,
        tlkit=description,
    )


def _signed(config: ModelConfig) -> ModelConfig:
    """Returns a configuration with its own checksum."""
    text = config.model_dump_json(by_alias=True, exclude_none=True, fallback=str)
    description = config.tlkit.model_copy(update={"config_sha256": content_sha256(text, *CHECKSUM_KEY)})
    return config.model_copy(update={"tlkit": description})
