"""Getting models of `transformers`: from a folder, from the hub, or from a configuration alone."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from huggingface_hub import try_to_load_from_cache
from torch import nn
from transformers.utils import logging

from tlkit import PluginError, TlkitError, WeightsError, close_matches, hub_url, why_unreachable

#: Of what a config.json says, what has no part in the network: where it came from, what classes are called.
_LABELS = ("_name_or_path", "id2label", "label2id", "transformers_version")
#: How a folder is told from a hub's id.
_FOLDERS = (".", "/", "~")


@dataclass(frozen=True)
class Place:
    """Where a model is.

    Attributes:
        name: a folder, or an id on the hub.
        local: whether nothing is to be asked of the hub.
    """

    name: str
    local: bool


@dataclass(frozen=True)
class Loaded:
    """A model, and what it was made of.

    Attributes:
        model: in evaluation mode.
        table: its configuration, from which `from_config` makes the same model without its weights.
        place: where it came from; of one made of its configuration, nowhere.
    """

    model: Any
    table: dict[str, Any]
    place: Place = Place("", local=True)


def load(address: str, *, pretrained: bool) -> Loaded:
    """The model at an address, with its weights or with random ones.

    Raises:
        WeightsError: there is no such model, or its weights cannot be had.
        PluginError: transformers cannot make it.
    """
    place = _place(address, pretrained=pretrained)
    with quiet(f"transformers:{address}"):
        found = transformers.AutoConfig.from_pretrained(
            place.name, local_files_only=place.local, trust_remote_code=False
        )
        table = _table(found)
        if not pretrained:
            return Loaded(_make(table), table, place)
        model, report = _kind(table).from_pretrained(
            place.name,
            config=_config(table),
            local_files_only=place.local,
            trust_remote_code=False,
            use_safetensors=True,
            dtype=torch.float32,
            output_loading_info=True,
        )
    missing = sorted(map(str, report["missing_keys"]))
    if missing and all(name.startswith("pooler.") for name in missing):
        # saved without its pooler, whatever the class is called: features are then read in front of it
        table["architectures"] = []
        missing = []
    if missing or report["mismatched_keys"]:
        raise WeightsError(
            f"transformers:{address}: its weights are not those of the network in its config.json: "
            f"{', '.join(map(str, missing or sorted(report['mismatched_keys'])))[:200]}"
        )
    return Loaded(_finished(model, table), table, place)


def from_config(table: Mapping[str, Any]) -> Loaded:
    """The model that a configuration describes, with random weights.

    Raises:
        PluginError: transformers cannot make it.
    """
    with quiet("config"):
        own = _table(_config(table))
        return Loaded(_make(own), own)


def base_of(model: Any) -> Any:
    """The part of a model that gives hidden states for images: without its classifier, or its text half."""
    base = model.base_model if _is_classified(model) else model
    return getattr(base, "vision_model", base)


def image_size(model: Any) -> int:
    """Height and width of the images that a model was configured for; 224 where it does not say."""
    config = getattr(model.config, "vision_config", model.config)
    size = getattr(config, "image_size", None) or 224
    return size if isinstance(size, int) else int(size[0])


def last_layer(model: Any) -> nn.Linear | None:
    """Takes the last layer off a classification model, where it is one linear layer; None where it is not."""
    if not _is_classified(model):
        return None
    inside = (f"{model.base_model_prefix}.", "vision_model.")
    layers = [
        (name, layer)
        for name, layer in model.named_modules()
        if isinstance(layer, nn.Linear) and not name.startswith(inside)
    ]
    if len(layers) != 1:
        return None
    name, layer = layers[0]
    model.set_submodule(name, nn.Identity())
    return layer


def _is_classified(model: Any) -> bool:
    return type(model).__name__.endswith("ForImageClassification")


def _place(address: str, *, pretrained: bool) -> Place:
    if not address.startswith(_FOLDERS) and not Path(address).is_absolute():
        return _on_hub(address, pretrained=pretrained)
    folder = Path(address).expanduser()
    if not folder.is_dir():
        siblings = [each.name for each in folder.parent.iterdir()] if folder.parent.is_dir() else []
        raise WeightsError(f"{folder}: no such folder{close_matches(folder.name, siblings)}")
    if not (folder / "config.json").is_file():
        raise WeightsError(f"{folder} has no config.json: name a folder that save_pretrained wrote")
    if pretrained and not any(folder.glob("*.safetensors")):
        raise WeightsError(
            f"{folder} has no .safetensors file, and other weights are not read since they may run code: "
            'save the model anew with a current transformers, or set weights = "none"'
        )
    return Place(str(folder), local=True)


def _on_hub(name: str, *, pretrained: bool) -> Place:
    needed = "model.safetensors" if pretrained else "config.json"
    try:
        there = isinstance(try_to_load_from_cache(name, needed), str)
    except ValueError as error:  # no name that the hub knows
        raise WeightsError(f"transformers:{name} is no id on the hub: {error}") from error
    if there:
        return Place(name, local=True)
    reason = why_unreachable(f"{hub_url()}/{name}")
    if reason is not None:
        folder = f"; the folder of that name is transformers:./{name}" if Path(name).is_dir() else ""
        raise WeightsError(
            f"transformers:{name} is not on this machine, and {hub_url()} could not be reached ({reason}){folder}"
        )
    return Place(name, local=False)


def _table(config: Any) -> dict[str, Any]:
    """A configuration as JSON can hold it, without what has no part in the network."""
    table: dict[str, Any] = json.loads(config.to_json_string(use_diff=True))
    channels = getattr(config, "num_channels", 3)
    if channels != 3:
        raise PluginError(f"a {config.model_type} of {channels} channels takes no RGB images")
    plain = {key: value for key, value in table.items() if key not in _LABELS}
    return {**plain, "num_labels": config.num_labels, "architectures": list(config.architectures or [])}


def _config(table: Mapping[str, Any]) -> Any:
    if not isinstance(table.get("model_type"), str):
        raise PluginError("config: needs a model_type, as every config.json of transformers' has")
    return transformers.AutoConfig.for_model(**table)


def _kind(table: Mapping[str, Any]) -> Any:
    classified = any(name.endswith("ForImageClassification") for name in table["architectures"])
    return transformers.AutoModelForImageClassification if classified else transformers.AutoModel


def _make(table: Mapping[str, Any]) -> Any:
    return _finished(_kind(table).from_config(_config(table), dtype=torch.float32), table)


def _finished(model: Any, table: Mapping[str, Any]) -> Any:
    """The model in evaluation mode, without a pooler that was not saved with it."""
    pooler = getattr(model, "pooler", None)
    trained = isinstance(pooler, nn.Module) and any(True for _ in pooler.parameters())
    if trained and type(model).__name__ not in table["architectures"]:
        model.pooler = None
    for module in model.modules():
        if hasattr(module, "config"):
            module.config._name_or_path = ""  # kept features are found by what made them, not where it lay
    return model.eval()


@contextmanager
def quiet(what: str) -> Iterator[None]:
    """Keeps transformers from talking and drawing bars, and says in tlkit's words what it refuses."""
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    except TlkitError:
        raise
    except Exception as error:  # it raises what the libraries below it do, and faults in a configuration
        reason = " ".join(str(error).split())
        raise PluginError(f"{what}: transformers refuses it: {reason[:400]}") from error
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
