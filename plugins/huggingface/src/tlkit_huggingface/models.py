"""Loads models of `transformers`: from a folder, from the hub, or from a configuration alone."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from huggingface_hub import hf_hub_download, metadata_load, try_to_load_from_cache
from torch import nn
from transformers.models.auto.image_processing_auto import IMAGE_PROCESSOR_MAPPING_NAMES
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES
from transformers.utils import logging

from tlkit import (
    PluginError,
    TlkitError,
    UnreachableWeightsError,
    WeightsError,
    WeightsOrigin,
    close_matches,
    hub_url,
    why_unreachable,
)

#: Keys of a config.json that do not affect the network: where it came from, names of classes.
_UNRELATED = ("_name_or_path", "id2label", "label2id", "transformers_version")
#: Kinds of models that hold a network of another library, found by its name.
_WRAPPERS = ("timm_",)
#: Kinds of models that take images.
_IMAGE_MODELS = {
    kind
    for kind in (*MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES, *IMAGE_PROCESSOR_MAPPING_NAMES)
    if not kind.startswith(_WRAPPERS)
}
#: An address that begins with one of these is a folder, not an id on the hub.
_FOLDER_PREFIXES = (".", "/", "~")


@dataclass(frozen=True)
class Location:
    """Where a model is.

    Attributes:
        name: a folder, or an id on the hub.
        local: whether it is on this machine, so that the hub need not be asked.
    """

    name: str
    local: bool


@dataclass(frozen=True)
class Loaded:
    """A model, and what it was made of.

    Attributes:
        model: the model, in evaluation mode.
        config: its configuration, from which `load_config` makes the same model without its weights.
        location: where it came from; empty if it was made of its configuration.
    """

    model: Any
    config: dict[str, Any]
    location: Location = Location("", local=True)


def load(address: str, *, pretrained: bool) -> Loaded:
    """Loads the model at an address, with its weights or with random ones.

    Raises:
        WeightsError: the model does not exist, or its weights cannot be loaded.
        PluginError: transformers cannot make it.
    """
    location = _locate(address, pretrained=pretrained)
    with quiet(f"transformers:{address}"):
        config = _to_dict(
            transformers.AutoConfig.from_pretrained(
                location.name, local_files_only=location.local, trust_remote_code=False
            )
        )
        if not pretrained:
            return Loaded(_make(config), config, location)
        model, report = _auto_class(config).from_pretrained(
            location.name,
            config=_from_dict(config),
            local_files_only=location.local,
            trust_remote_code=False,
            use_safetensors=True,
            dtype=torch.float32,
            output_loading_info=True,
        )
    missing = sorted(map(str, report["missing_keys"]))
    if missing and all(name.startswith("pooler.") for name in missing):
        # saved without its pooler, whatever its class is called: features are then read in front of it
        config["architectures"] = []
        missing = []
    if missing or report["mismatched_keys"]:
        raise WeightsError(
            f"transformers:{address}: its weights do not fit the network in its config.json: "
            f"{', '.join(map(str, missing or sorted(report['mismatched_keys'])))[:200]}"
        )
    return Loaded(_finish(model, config), config, location)


def load_config(config: Mapping[str, Any]) -> Loaded:
    """Makes the model that a configuration describes, with random weights.

    Raises:
        PluginError: transformers cannot make it.
    """
    with quiet("config"):
        complete = _to_dict(_from_dict(config))
        return Loaded(_make(complete), complete)


def base_model(model: Any) -> Any:
    """Returns the part of a model that maps images to hidden states: without its classifier or text model."""
    base = model.base_model if _has_classifier(model) else model
    return getattr(base, "vision_model", base)


def image_size(model: Any) -> int:
    """Returns the height and width of the images that a model is configured for; 224 if it does not say."""
    config = getattr(model.config, "vision_config", model.config)
    size = getattr(config, "image_size", None) or 224
    return size if isinstance(size, int) else int(size[0])


def remove_classifier(model: Any) -> nn.Linear | None:
    """Removes a classification model's last layer and returns it; None if it is not a single linear layer."""
    if not _has_classifier(model):
        return None
    base_prefixes = (f"{model.base_model_prefix}.", "vision_model.")
    layers = [
        (name, layer)
        for name, layer in model.named_modules()
        if isinstance(layer, nn.Linear) and not name.startswith(base_prefixes)
    ]
    if len(layers) != 1:
        return None
    name, layer = layers[0]
    model.set_submodule(name, nn.Identity())
    return layer


def _has_classifier(model: Any) -> bool:
    return type(model).__name__.endswith("ForImageClassification")


def find_origin(address: str, location: Location) -> WeightsOrigin:
    """Returns where a model's weights come from, with the licence that its card names, if it has one."""
    on_hub = _is_on_hub(address)
    source = f"transformers:{location.name if on_hub else Path(location.name).absolute().name}"
    try:
        if on_hub:
            card = hf_hub_download(location.name, "README.md", local_files_only=location.local)
        else:
            card = str(Path(location.name) / "README.md")
        license_name = (metadata_load(card) or {}).get("license")
    except Exception:  # there is no card, or its YAML, which anyone may have written, cannot be read
        license_name = None
    return WeightsOrigin(source, license_name if isinstance(license_name, str) else None)


def _is_on_hub(address: str) -> bool:
    return not address.startswith(_FOLDER_PREFIXES) and not Path(address).is_absolute()


def _locate(address: str, *, pretrained: bool) -> Location:
    if _is_on_hub(address):
        return _on_hub(address, pretrained=pretrained)
    folder = Path(address).expanduser()
    if not folder.is_dir():
        siblings = [path.name for path in folder.parent.iterdir()] if folder.parent.is_dir() else []
        raise WeightsError(f"{folder} is not a folder{close_matches(folder.name, siblings)}")
    if not (folder / "config.json").is_file():
        raise WeightsError(f"{folder} has no config.json: name a folder that save_pretrained wrote")
    if pretrained and not any(folder.glob("*.safetensors")):
        raise WeightsError(
            f"{folder} has no .safetensors file, and other weights are not read since they may run code: "
            'save the model again with a current transformers, or set weights = "none"'
        )
    return Location(str(folder), local=True)


def _on_hub(name: str, *, pretrained: bool) -> Location:
    required = "model.safetensors" if pretrained else "config.json"
    try:
        downloaded = isinstance(try_to_load_from_cache(name, required), str)
    except ValueError as error:  # not a valid id
        raise WeightsError(f"transformers:{name} is not an id on the hub: {error}") from error
    if downloaded:
        return Location(name, local=True)
    reason = why_unreachable(f"{hub_url()}/{name}")
    if reason is not None:
        folder = f"; the folder of that name is transformers:./{name}" if Path(name).is_dir() else ""
        raise UnreachableWeightsError(
            f"transformers:{name} is not on this machine, and {hub_url()} could not be reached "
            f"({reason}){folder}"
        )
    return Location(name, local=False)


def _to_dict(config: Any) -> dict[str, Any]:
    """Converts a configuration to what JSON can hold, without keys that do not affect the network."""
    content: dict[str, Any] = json.loads(config.to_json_string(use_diff=True))
    channels = getattr(config, "num_channels", 3)
    if channels != 3:
        raise PluginError(f"a {config.model_type} of {channels} channels does not take RGB images")
    related = {key: value for key, value in content.items() if key not in _UNRELATED}
    return {**related, "num_labels": config.num_labels, "architectures": list(config.architectures or [])}


def _from_dict(config: Mapping[str, Any]) -> Any:
    if not isinstance(config.get("model_type"), str):
        raise PluginError("config: needs a model_type, as every config.json of transformers has")
    if config["model_type"] not in _IMAGE_MODELS:
        kinds = close_matches(config["model_type"], _IMAGE_MODELS)
        raise PluginError(f"config: {config['model_type']!r} is not a kind of image model{kinds}")
    _check_self_contained(config)
    return transformers.AutoConfig.for_model(**config)


def _check_self_contained(config: Mapping[str, Any]) -> None:
    """Raises if a configuration, or a part of it, names another network, which could be anywhere."""
    for key, value in config.items():
        if (key == "auto_map" or "backbone" in key) and value:
            raise PluginError(f"config: {key!r} names another network, which is not supported")
        if isinstance(value, Mapping):
            if str(value.get("model_type", "")).startswith(_WRAPPERS):
                raise PluginError(f"config: {key!r} wraps another network, which is not supported")
            _check_self_contained(value)


def _auto_class(config: Mapping[str, Any]) -> Any:
    has_classifier = any(name.endswith("ForImageClassification") for name in config["architectures"])
    return transformers.AutoModelForImageClassification if has_classifier else transformers.AutoModel


def _make(config: Mapping[str, Any]) -> Any:
    return _finish(_auto_class(config).from_config(_from_dict(config), dtype=torch.float32), config)


def _finish(model: Any, config: Mapping[str, Any]) -> Any:
    """Puts a model into evaluation mode, and removes a pooler that was not saved with it."""
    pooler = getattr(model, "pooler", None)
    has_parameters = isinstance(pooler, nn.Module) and any(True for _ in pooler.parameters())
    if has_parameters and type(model).__name__ not in config["architectures"]:
        model.pooler = None
    for module in model.modules():
        if hasattr(module, "config"):
            # cached features are found by what computed them, not by where that was saved
            module.config._name_or_path = ""
    return model.eval()


@contextmanager
def quiet(subject: str) -> Iterator[None]:
    """Hides messages and progress bars of transformers, and turns its errors into PluginError."""
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    except TlkitError:
        raise
    except Exception as error:  # transformers passes on whatever the libraries that it uses raise
        reason = " ".join(str(error).split())
        raise PluginError(f"{subject}: transformers refuses it: {reason[:400]}") from error
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
