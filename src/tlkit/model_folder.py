"""A trained classifier with all that prediction needs, as a folder.

``model.safetensors`` and ``config.json``, in timm's own form with one more table, ``tlkit``. A linear head
on pooled features is saved under timm's own names, so plain timm loads such a folder too.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

from safetensors import SafetensorError
from safetensors.torch import load, save_file
from torch import Tensor, nn

from tlkit.components import Backbone
from tlkit.errors import RunFolderError
from tlkit.model.classifier import Classifier

FORMAT = 1
LIBRARIES = ("tlkit", "torch", "timm", "safetensors")


class Maker(Protocol):
    """What makes parts: the registry."""

    def make(self, kind: str, name: str, options: Mapping[str, Any], *args: Any) -> Any:
        """The part of that kind and name."""


@dataclass(frozen=True)
class SavedModel:
    """What a model folder holds.

    Attributes:
        classifier: the network, in evaluation mode on the CPU.
        backbone: what its backbone was made as, with the preprocessing its images must go through.
        classes: the class names, in the order of the logits.
        temperature: what the logits are divided by.
        reject_below: the confidence below which an image stays unclassified, or None.
        config: the whole config.json.
    """

    classifier: Classifier
    backbone: Backbone
    classes: tuple[str, ...]
    temperature: float
    reject_below: float | None
    config: Mapping[str, Any]


def save_model(
    folder: Path,
    classifier: Classifier,
    backbone: Backbone,
    *,
    backbone_table: Mapping[str, Any],
    head_table: Mapping[str, Any],
    classes: Sequence[str],
    calibration: Mapping[str, float | None],
) -> None:
    """Writes a model folder; a reader sees the whole folder or none.

    Args:
        folder: where; replaced if it exists.
        classifier: the network.
        backbone: what its backbone was made as.
        backbone_table: the recipe's table of the backbone, used where it has no blueprint.
        head_table: the recipe's table of the head.
        classes: names in the order of the logits.
        calibration: `temperature` that the logits are divided by, and `reject_below`, the confidence
            below which an image stays unclassified, or None.

    Raises:
        RunFolderError: it cannot be written.
    """
    layer = _timm_layer(classifier, backbone)
    state = {
        _timm_name(name, layer) if layer else name: value.detach().cpu().contiguous().clone()
        for name, value in classifier.state_dict().items()
    }
    config = _config(backbone, classes, layer)
    config["tlkit"] = {
        "format": FORMAT,
        "backbone": dict(backbone.blueprint or backbone_table),
        "head": dict(head_table),
        "preprocess": asdict(backbone.preprocess),
        "classes": list(classes),
        "classifier_layer": layer,
        "calibration": dict(calibration),
        "versions": {name: version(name) for name in LIBRARIES},
    }
    unfinished = folder.with_name(folder.name + ".unfinished")
    try:
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        weights = unfinished / "model.safetensors"
        save_file(state, weights, metadata={"format": "pt"})
        config["tlkit"]["sha256"] = hashlib.sha256(weights.read_bytes()).hexdigest()
        (unfinished / "config.json").write_text(json.dumps(config, indent=1, default=str) + "\n")
        shutil.rmtree(folder, ignore_errors=True)
        unfinished.rename(folder)
    except (OSError, SafetensorError) as error:
        raise RunFolderError(f"the model cannot be written to {folder}: {error}") from error


def load_model(folder: Path, registry: Maker) -> SavedModel:
    """Reads a model folder.

    Raises:
        RunFolderError: it is no model folder, incomplete, altered, or made by a newer tlkit.
    """
    config, state = _read(folder)
    about = config["tlkit"]
    backbone = make_backbone(registry, about["backbone"], about["preprocess"])
    head = registry.make("head", *_part(about["head"]), backbone, about["classes"])
    classifier = Classifier(backbone, head)
    load_state(classifier, state, folder)
    classifier.eval()
    calibration = about["calibration"]
    return SavedModel(
        classifier,
        backbone,
        tuple(about["classes"]),
        calibration["temperature"],
        calibration["reject_below"],
        config,
    )


def make_backbone(registry: Maker, table: Mapping[str, Any], preprocess: Mapping[str, Any]) -> Backbone:
    """The backbone that a table describes, with these settings in place of its own preprocessing."""
    backbone: Backbone = registry.make("backbone", *_part(table))
    backbone.preprocess = backbone.preprocess.override(preprocess)
    return backbone


def read_state(folder: Path) -> dict[str, Tensor]:
    """The weights in a model folder, by the classifier's own names.

    Raises:
        RunFolderError: as `load_model`.
    """
    return _read(folder)[1]


def load_state(classifier: Classifier, state: Mapping[str, Tensor], folder: Path) -> None:
    """Puts weights into a classifier.

    Raises:
        RunFolderError: they are another network's.
    """
    own = {name: tuple(value.shape) for name, value in classifier.state_dict().items()}
    given = {name: tuple(value.shape) for name, value in state.items()}
    if own != given:
        wrong = sorted(name for name in own.keys() | given.keys() if own.get(name) != given.get(name))
        raise RunFolderError(f"{folder}: its weights and its config.json do not belong together: {wrong[:3]}")
    classifier.load_state_dict(dict(state))


def _read(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """config.json, and the weights by the classifier's own names."""
    try:
        config: dict[str, Any] = json.loads((folder / "config.json").read_text())
        about = config["tlkit"]
        weights = (folder / "model.safetensors").read_bytes()
        state = load(weights)
        altered = hashlib.sha256(weights).hexdigest() != about["sha256"]
        newer = about["format"] > FORMAT
        layer = about["classifier_layer"]
    except FileNotFoundError as error:
        raise RunFolderError(f"{folder} is no model folder: {error}") from error
    except (ValueError, KeyError, TypeError, SafetensorError, OSError) as error:
        raise RunFolderError(f"{folder} is no sound model folder: {error}") from error
    if newer:
        raise RunFolderError(f"{folder} was made by a newer tlkit than this one: update tlkit")
    if altered:
        raise RunFolderError(f"{folder}: model.safetensors is not the file that config.json was written for")
    if layer:
        state = {_own_name(name, layer): value for name, value in state.items()}
    return config, state


def _part(table: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    return table["name"], {key: value for key, value in table.items() if key != "name"}


def _config(backbone: Backbone, classes: Sequence[str], layer: str | None) -> dict[str, Any]:
    """timm's part of config.json; without one linear layer at the end timm has no use for it."""
    if backbone.timm_config is None or layer is None:
        return {"architecture": None}
    preprocess = backbone.preprocess
    mode = {"crop": "center", "squash": "squash", "pad": "border"}[preprocess.resize]
    pretrained = {
        **{key: backbone.timm_config["pretrained_cfg"].get(key) for key in ("first_conv", "license")},
        "custom_load": False,
        "input_size": [3, preprocess.size, preprocess.size],
        "interpolation": preprocess.interpolation,
        "crop_pct": preprocess.crop,
        "crop_mode": mode,
        "mean": list(preprocess.mean),
        "std": list(preprocess.std),
        "num_classes": len(classes),
        "classifier": layer,
        "label_names": list(classes),
    }
    return {
        "architecture": backbone.timm_config["architecture"],
        "num_classes": len(classes),
        "model_args": dict(backbone.timm_config["model_args"]),
        "pretrained_cfg": pretrained,
    }


def _timm_layer(classifier: Classifier, backbone: Backbone) -> str | None:
    """timm's name for its last layer, where this classifier is just that network."""
    config = backbone.timm_config
    only = {name for name, _ in classifier.head.named_parameters()} == {"fc.weight", "fc.bias"}
    if config is None or not only or len(backbone.feature_shape) != 1 or classifier.method != "forward":
        return None
    layer = config["pretrained_cfg"].get("classifier")
    same = isinstance(backbone.classifier, nn.Linear)
    return layer if isinstance(layer, str) and same else None


def _timm_name(name: str, layer: str) -> str:
    return name.replace("head.fc", layer, 1) if name.startswith("head.") else name.removeprefix("backbone.")


def _own_name(name: str, layer: str) -> str:
    head = name.startswith(f"{layer}.")
    return name.replace(layer, "head.fc", 1) if head else f"backbone.{name}"
