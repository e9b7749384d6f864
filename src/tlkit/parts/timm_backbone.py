"""Backbones from networks built like timm's, and weights from a file.

Plugins that bring a network of timm's kind start here.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import timm
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from timm.models import group_parameters
from timm.models._manipulate import group_with_matcher
from torch import Tensor, nn

from tlkit.errors import PluginError, WeightsError
from tlkit.parts.backbone import Backbone, Block
from tlkit.parts.preprocess import TIMM_CROP_MODES, Preprocess
from tlkit.utils.formatting import shortlist

Features = Literal["pooled", "map"]

#: How many differences between two networks' weights an error names.
DIFFERENCES_SHOWN = 3


def from_timm(
    model: nn.Module, *, features: Features = "pooled", preprocess: Preprocess | None = None
) -> Backbone:
    """Makes a backbone of a network that is built like timm's, with its blocks and pretrained last layer.

    Where it is a network that timm makes without further arguments, its model folders are timm's, too.

    Args:
        model: the whole network, weights and classifier included; its classifier is taken off.
        features: "pooled": what the classifier sees, ``(B, C)``; "map": the last activation maps
            ``(B, C, h, w)``, or the tokens ``(B, N, C)`` of a transformer.
        preprocess: the preprocessing that its images need; from its ``pretrained_cfg`` unless given.

    Raises:
        PluginError: it takes images that are not square.
    """
    config = _timm_config(model)
    return replace(divide_network(model, features=features, preprocess=preprocess), timm_config=config)


def divide_network(model: nn.Module, *, features: Features, preprocess: Preprocess | None = None) -> Backbone:
    """Makes a backbone as `from_timm` does, without finding out whether timm makes that network."""
    network: Any = model
    classifier = _last_layer(network)
    preprocess = preprocess or _preprocess(network)
    module, method = _remove_classifier(network, features, preprocess)
    return Backbone(
        module,
        preprocess=preprocess,
        classifier=classifier,
        method=method,
        grouping=_blocks(module),
        layers=_layers(module),
    )


def _timm_config(network: Any) -> dict[str, Any] | None:
    """Returns what timm needs to make a network, if it makes exactly this one of its name alone."""
    config: dict[str, Any] = dict(getattr(network, "pretrained_cfg", None) or {})
    architecture = config.get("architecture") or ""
    if not timm.is_model(architecture):
        return None
    with torch.device("meta"):
        own = timm.create_model(architecture, num_classes=network.num_classes)
    shapes = [{key: value.shape for key, value in net.state_dict().items()} for net in (own, network)]
    # layers' descriptions have strides, activations and the like; numbers of heads are attributes alone
    settings = [[_settings(layer) for layer in net.modules()] for net in (own, network)]
    if shapes[0] != shapes[1] or repr(own) != repr(network) or settings[0] != settings[1]:
        return None
    return {"architecture": architecture, "model_args": {}, "pretrained_cfg": config}


def _settings(layer: nn.Module) -> dict[str, object]:
    """Returns the plain attributes of a layer."""
    return {
        name: value
        for name, value in vars(layer).items()
        if name != "training" and isinstance(value, bool | int | float | str)
    }


def load_weights(model: nn.Module, path: Path) -> None:
    """Loads a .safetensors file with the weights of this very network, in any precision.

    Raises:
        WeightsError: the file is missing, is not a safetensors file, or has another network's weights.
    """
    if path.suffix != ".safetensors":
        raise WeightsError(
            f"{path}: weights are read from .safetensors files only, since other formats can run code"
        )
    if not path.is_file():
        raise WeightsError(f"{path}: no such file")
    try:
        state = load_file(path)
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path} is not a valid safetensors file: {error}") from error
    own = model.state_dict()
    differences = [f"lacks {key}" for key in own if key not in state]
    differences += [f"has {key}, unknown here" for key in state if key not in own]
    differences += [
        f"{key} is {tuple(state[key].shape)}, not {tuple(own[key].shape)}"
        for key in own
        if key in state and own[key].shape != state[key].shape
    ]
    if differences:
        listed = shortlist(differences, DIFFERENCES_SHOWN, "; ")
        raise WeightsError(f"{path} holds another network's weights: it {listed}")
    model.load_state_dict(state)


class ChannelsFirst(nn.Module):
    """Feature maps of a network with channels-last outputs, as ``(B, C, h, w)``."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.net = network

    def forward(self, images: Tensor) -> Tensor:
        """Maps images ``(B, 3, H, W)`` to features ``(B, C, h, w)``."""
        features: Tensor = self.net.forward_features(images)
        return features.permute(0, 3, 1, 2)


def _last_layer(model: Any) -> nn.Linear | None:
    """Returns a copy of the last layer, where it is one linear layer."""
    layer = model.get_classifier()
    if isinstance(layer, nn.Conv2d) and layer.kernel_size == (1, 1):
        linear = nn.Linear(layer.in_channels, layer.out_channels, bias=layer.bias is not None)
        linear.load_state_dict(
            {key: value.flatten(1) if value.ndim == 4 else value for key, value in layer.state_dict().items()}
        )
        return linear
    return copy.deepcopy(layer) if isinstance(layer, nn.Linear) else None


def _remove_classifier(model: Any, features: Features, preprocess: Preprocess) -> tuple[nn.Module, str]:
    """Removes what the features do not need; returns the module and its method that computes them."""
    if features == "pooled":
        model.reset_classifier(0)
        return model, "forward"
    if hasattr(model, "prune_intermediate_layers"):
        # timm's own way to remove everything behind the last maps, VGG's convolutional head included
        model.prune_intermediate_layers(indices=1, prune_norm=False, prune_head=True)
    else:
        model.reset_classifier(0, "")
    if getattr(model, "output_fmt", "NCHW") == "NHWC":
        # tokens stay as they are
        if len(Backbone(model, preprocess, method="forward_features").feature_shape) == 3:
            return ChannelsFirst(model), "forward"
    return model, "forward_features"


def _preprocess(network: Any) -> Preprocess:
    config: Mapping[str, Any] = network.pretrained_cfg
    # a network made for another image size than its weights knows it itself
    own = getattr(getattr(network, "patch_embed", None), "img_size", None)
    height, width = own if isinstance(own, tuple) else config["input_size"][1:]
    if height != width:
        name = config.get("architecture", "the network")
        raise PluginError(f"{name} takes {height}x{width} images; only square ones are supported")
    resize = {mode: name for name, mode in TIMM_CROP_MODES.items()}
    return Preprocess(
        size=height,
        resize=resize[config.get("crop_mode") or "center"],
        crop=config.get("crop_pct") or 0.875,
        interpolation=config["interpolation"],
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
    )


def _blocks(module: nn.Module) -> list[Block]:
    """Returns the blocks from input to output; each parameter is in exactly one.

    A block ends at each module that ``feature_info`` names, in the order of registration; what
    follows the last one joins it, and a block without parameters is dropped. Where ``feature_info``
    names no modules in that order, the coarse ``group_matcher`` is used.
    """
    network, prefix = _unwrapped(module)
    ends = _ends(network)
    groups = _by_end(network, ends) if ends else _by_matcher(network)
    return [
        Block(name, tuple(prefix + key for key in keys), _start(name, keys[0]) if ends else None)
        for name, keys in groups.items()
        if keys
    ]


def _start(end: str, first: str) -> str:
    """Returns the module that begins a block, at most as far from the root as the module that ends it.

    A parameter of the root itself, such as a class token, is returned in place of a module.
    """
    modules = first.split(".")[:-1] or [first]
    return ".".join(modules[: end.count(".") + 1])


def _layers(module: nn.Module) -> list[list[str]] | None:
    """Returns the names of the parameters by layer, as timm's layer decay groups them; None if it cannot.

    timm often has the last norm or convolution in one layer with its own last layer, which was taken off.
    """
    network, prefix = _unwrapped(module)
    if not hasattr(network, "group_matcher"):
        return None
    last = getattr(network, "pretrained_cfg", {}).get("classifier") or "head"
    head = f"{last if isinstance(last, str) else last[0]}.weight"
    names = [*(name for name, _ in network.named_parameters()), head]
    groups = group_with_matcher(((name, None) for name in names), network.group_matcher(coarse=False))
    return [[prefix + name for name in group if name != head] for group in groups.values()]


def _unwrapped(module: nn.Module) -> tuple[Any, str]:
    """Returns timm's network, and what its parameters' names begin with."""
    network: Any = getattr(module, "net", module)
    return network, "" if network is module else "net."


def _ends(network: Any) -> dict[str, int]:
    """Returns each feature module's name with the position of the last module inside it, or nothing."""
    order = [name for name, _ in network.named_modules()]
    info = getattr(network, "feature_info", None) or []
    ends: dict[str, int] = {}
    for name in (entry["module"] for entry in info):
        inside = [position for position, other in enumerate(order) if f"{other}.".startswith(f"{name}.")]
        if not inside:
            return {}
        ends[name] = inside[-1]
    positions = list(ends.values())
    return ends if len(ends) > 1 and positions == sorted(set(positions)) else {}


def _by_end(network: nn.Module, ends: dict[str, int]) -> dict[str, list[str]]:
    order = {name: position for position, (name, _) in enumerate(network.named_modules())}
    groups: dict[str, list[str]] = {name: [] for name in ends}
    last = list(ends)[-1]
    for key, _ in network.named_parameters():
        owner = order[key.rpartition(".")[0]]
        groups[next((name for name, end in ends.items() if owner <= end), last)].append(key)
    return groups


def _by_matcher(network: Any) -> dict[str, list[str]]:
    groups = group_parameters(network, network.group_matcher(coarse=True))
    return {f"group {number}": list(keys) for number, keys in sorted(groups.items())}
