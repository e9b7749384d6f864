"""Creates timm networks with their weights, and fails quickly where the network cannot be reached."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import timm
import torch
from huggingface_hub import try_to_load_from_cache
from pydantic import BaseModel
from safetensors import SafetensorError
from timm.models import build_model_with_cfg, load_model_config_from_hf
from timm.models._hub import load_model_config_from_path

from tlkit.errors import PluginError, UnreachableWeightsError, WeightsError, close_matches
from tlkit.parts.backbone import WeightsOrigin
from tlkit.parts.initial_values import if_not_loaded
from tlkit.utils.connectivity import hub_url, why_unreachable
from tlkit.utils.json_files import read_json

#: Arguments that timm itself hands to a network's batch norms.
BATCH_NORM_ARGUMENTS = {"bn_eps", "bn_momentum"}
#: Arguments that say where weights come from, or where a network is made.
LOADING_ARGUMENTS = {
    *inspect.signature(timm.create_model).parameters,
    *inspect.signature(build_model_with_cfg).parameters,
    "device",
    "dtype",
}


class _SavedDescription(BaseModel):
    """The part of a model folder's table `tlkit` that a backbone keeps."""

    weights: WeightsOrigin | None = None


class _SavedConfig(BaseModel):
    """A config.json of timm's, which is a model folder's if it has the table `tlkit`."""

    tlkit: _SavedDescription | None = None


def create_model(name: str, model_args: Mapping[str, Any], *, pretrained: bool) -> Any:
    """Calls timm.create_model, with errors that say what to do.

    Raises:
        WeightsError: there are no such weights, or they are neither on this machine nor can be downloaded.
        PluginError: timm rejects the name or the arguments.
    """
    overlay = None
    check_arguments(name, model_args)
    if pretrained and ":" not in name:
        overlay = _locate_weights(name)
    try:
        with if_not_loaded():
            return timm.create_model(
                name, pretrained=pretrained, pretrained_cfg_overlay=overlay, **model_args
            )
    except (RuntimeError, SafetensorError, OSError) as error:
        if pretrained:
            raise WeightsError(f"backbone {name!r}: its weights could not be loaded: {error}") from error
        raise PluginError(f"backbone {name!r} could not be made: {error}") from error
    except (TypeError, ValueError, AssertionError) as error:
        raise PluginError(f"backbone {name!r} with model_args {model_args}: {error}") from error


def saved_config(name: str) -> tuple[str, dict[str, Any]]:
    """Returns the architecture and its arguments: of an address, those in its config.json.

    Raises:
        WeightsError: the folder or repository is not there, or has no such configuration.
    """
    scheme, colon, address = name.partition(":")
    if not colon:
        return name.partition(".")[0], {}
    if scheme == "local-dir":
        read = load_model_config_from_path
        _check_folder(Path(address))
    else:
        read = load_model_config_from_hf
        _check_hub(address.partition("@")[0], name)
    try:
        _, architecture, arguments = read(address)
        return str(architecture), dict(arguments or {})
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise WeightsError(f"{name}: its config.json is not timm's: {error}") from error


def find_origin(name: str, config: Mapping[str, Any]) -> WeightsOrigin:
    """Returns where the weights of a name or an address come from, given timm's configuration of them.

    A folder that tlkit has saved knows where the weights came from that its training started with.
    """
    scheme, _, address = name.partition(":")
    if scheme == "hf-hub":
        source = name
    elif scheme == "local-dir":
        folder = Path(address).absolute()
        saved = read_json(folder / "config.json", _SavedConfig, WeightsError).tlkit
        if saved is not None and saved.weights is not None:
            return saved.weights
        source = f"local-dir:{folder.name}"
    else:
        source = f"hf-hub:{config['hf_hub_id']}" if config.get("hf_hub_id") else config["url"]
    return WeightsOrigin(source, config.get("license"))


def check_arguments(name: str, model_args: Mapping[str, Any]) -> None:
    """Checks that arguments, those of a folder or repository included, are a network's own.

    Others are timm's way to read weights from any file or address; a stranger's recipe or folder may name
    them. What a network takes is read from the classes of its module in timm.

    Raises:
        PluginError: an argument is unknown.
    """
    architecture, saved = saved_config(name)
    if not timm.is_model(architecture):
        raise PluginError(f"backbone {name!r}: timm knows no architecture {architecture!r}")
    accepted = _network_arguments(architecture)
    for argument in (*model_args, *saved):
        if argument not in accepted:
            raise PluginError(
                f"backbone {name!r}: model_args: {architecture} has no argument {argument!r}"
                f"{close_matches(argument, accepted)}"
            )


def _network_arguments(architecture: str) -> set[str]:
    module = sys.modules[timm.models.model_entrypoint(architecture).__module__]
    classes = {base for value in vars(module).values() if isinstance(value, type) for base in value.__mro__}
    networks = [cls for cls in classes if issubclass(cls, torch.nn.Module)]
    names = {name for cls in networks for name in inspect.signature(cls).parameters}
    return (names | BATCH_NORM_ARGUMENTS) - LOADING_ARGUMENTS


def _check_folder(folder: Path) -> None:
    if not folder.is_dir():
        raise WeightsError(f"local-dir:{folder}: no such folder")
    for name in ("config.json", "model.safetensors"):
        if not (folder / name).is_file():
            raise WeightsError(f"local-dir:{folder}: the folder has no {name}")


def _check_hub(repository: str, name: str) -> None:
    if not isinstance(try_to_load_from_cache(repository, "config.json"), str):
        _check_reachable(f"{hub_url()}/{repository}", name)


def _locate_weights(name: str) -> dict[str, str] | None:
    """Returns the timm configuration of a cached weights file, or None to let timm download it."""
    config = timm.models.get_pretrained_cfg(name)
    if config is None or not config.has_weights:
        tags = timm.list_pretrained(f"{name.partition('.')[0]}.*")
        hint = f"; there are weights for {', '.join(tags)}" if tags else ""
        raise WeightsError(
            f'backbone {name!r} has no pretrained weights: set weights = "none" or a file{hint}'
        )
    if config.hf_hub_id:
        cached = try_to_load_from_cache(config.hf_hub_id, config.hf_hub_filename or "model.safetensors")
        if isinstance(cached, str) and not config.custom_load:
            return {"file": cached}
        _check_reachable(f"{hub_url()}/{config.hf_hub_id}", name)
    elif config.url and not (Path(torch.hub.get_dir()) / "checkpoints" / Path(config.url).name).is_file():
        _check_reachable(config.url, name)
    return None


def _check_reachable(url: str, name: str) -> None:
    reason = why_unreachable(url)
    if reason is not None:
        raise UnreachableWeightsError(
            f"backbone {name!r}: its weights are not on this machine, and {url} could not be reached "
            f"({reason})"
        )
