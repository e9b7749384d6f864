"""What makes a backbone of a network: of any of timm's, with weights from a file.

Plugins that bring a network of timm's kind start here.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from safetensors import SafetensorError
from safetensors.torch import load_file
from timm.models import group_parameters
from torch import Tensor, nn

from tlkit.components import Backbone, Block, Preprocess
from tlkit.errors import PluginError, WeightsError

Features = Literal["pooled", "map"]


def from_timm(
    model: nn.Module, *, features: Features = "pooled", preprocess: Preprocess | None = None
) -> Backbone:
    """A backbone of a network that is built like timm's, with its blocks and its pretrained last layer.

    Args:
        model: the whole network, weights and classifier included; its classifier is taken off.
        features: "pooled": what the classifier sees, ``(B, C)``; "map": the last activation maps
            ``(B, C, h, w)``, or the tokens ``(B, N, C)`` of a transformer.
        preprocess: what its images must have gone through; its ``pretrained_cfg`` says unless given.

    Raises:
        PluginError: it takes images that are not square.
    """
    net: Any = model
    classifier = _last_layer(net)
    preprocess = preprocess or _preprocess(net)
    module, method = _cut(net, features, preprocess)
    return Backbone(
        module, preprocess=preprocess, classifier=classifier, method=method, grouping=_blocks(module)
    )


def load_weights(model: nn.Module, path: Path) -> None:
    """Loads a .safetensors file of this very network, whatever precision it is stored in.

    Raises:
        WeightsError: no such file, not safetensors, or weights of another network.
    """
    if path.suffix != ".safetensors":
        raise WeightsError(
            f"{path}: weights are read from .safetensors files only, since others may run code"
        )
    if not path.is_file():
        raise WeightsError(f"{path}: no such file")
    try:
        state = load_file(path)
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path} is no sound safetensors file: {error}") from error
    own = model.state_dict()
    missing = [key for key in own if key not in state]
    unknown = [key for key in state if key not in own]
    shapes = [key for key in own if key in state and own[key].shape != state[key].shape]
    if missing or unknown or shapes:
        wrong = [*(f"lacks {key}" for key in missing), *(f"has {key}, unknown here" for key in unknown)]
        wrong += [f"{key} is {tuple(state[key].shape)}, not {tuple(own[key].shape)}" for key in shapes]
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise WeightsError(f"{path} holds another network's weights: it {'; '.join(wrong[:3])}{more}")
    model.load_state_dict(state)


class ChannelsFirst(nn.Module):
    """The feature maps of a network that keeps its channels last, as ``(B, C, h, w)``."""

    def __init__(self, net: Any) -> None:
        super().__init__()
        self.net = net

    def forward(self, images: Tensor) -> Tensor:
        """Images ``(B, 3, H, W)`` to maps ``(B, C, h, w)``."""
        features: Tensor = self.net.forward_features(images)
        return features.permute(0, 3, 1, 2)


def _last_layer(model: Any) -> nn.Linear | None:
    """The last layer, apart from the network, where it is one linear layer."""
    layer = model.get_classifier()
    if isinstance(layer, nn.Conv2d) and layer.kernel_size == (1, 1):
        linear = nn.Linear(layer.in_channels, layer.out_channels, bias=layer.bias is not None)
        linear.load_state_dict(
            {key: value.flatten(1) if value.ndim == 4 else value for key, value in layer.state_dict().items()}
        )
        return linear
    return copy.deepcopy(layer) if isinstance(layer, nn.Linear) else None


def _cut(model: Any, features: Features, preprocess: Preprocess) -> tuple[nn.Module, str]:
    """Takes off what the features do not need; the module and its method that makes them."""
    if features == "pooled":
        model.reset_classifier(0)
        return model, "forward"
    if hasattr(model, "prune_intermediate_layers"):
        # timm's own way to leave everything behind the last maps out, VGG's convolution-like head too
        model.prune_intermediate_layers(indices=1, prune_norm=False, prune_head=True)
    else:
        model.reset_classifier(0, "")
    maps = len(Backbone(model, preprocess, method="forward_features").feature_shape) == 3
    if maps and getattr(model, "output_fmt", "NCHW") == "NHWC":
        return ChannelsFirst(model), "forward"
    return model, "forward_features"


def _preprocess(net: Any) -> Preprocess:
    config: Mapping[str, Any] = net.pretrained_cfg
    # a network made for another size than its weights were says so itself
    own = getattr(getattr(net, "patch_embed", None), "img_size", None)
    height, width = own if isinstance(own, tuple) else config["input_size"][1:]
    if height != width:
        name = config.get("architecture", "the network")
        raise PluginError(f"{name} takes {height}x{width} images; only square ones are supported")
    resize: dict[str, Any] = {"center": "crop", "squash": "squash", "border": "pad"}
    return Preprocess(
        size=height,
        resize=resize[config.get("crop_mode") or "center"],
        crop=config.get("crop_pct") or 0.875,
        interpolation=config["interpolation"],
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
    )


def _blocks(module: nn.Module) -> list[Block]:
    """The network's blocks from input to output; each parameter is in exactly one.

    A block ends at each module that ``feature_info`` names, in the order of registration; what
    follows the last joins it, and a block without parameters is dropped. Where ``feature_info``
    names no modules in that order, the coarse ``group_matcher`` serves.
    """
    net: Any = getattr(module, "net", module)
    prefix = "" if net is module else "net."
    ends = _ends(net)
    groups = _by_end(net, ends) if ends else _by_matcher(net)
    return [Block(name, tuple(prefix + key for key in keys)) for name, keys in groups.items() if keys]


def _ends(net: Any) -> dict[str, int]:
    """Each feature module's name and the position of the last module inside it; empty if unusable."""
    order = [name for name, _ in net.named_modules()]
    info = getattr(net, "feature_info", None) or []
    ends: dict[str, int] = {}
    for name in (entry["module"] for entry in info):
        inside = [position for position, other in enumerate(order) if f"{other}.".startswith(f"{name}.")]
        if not inside:
            return {}
        ends[name] = inside[-1]
    positions = list(ends.values())
    return ends if len(ends) > 1 and positions == sorted(set(positions)) else {}


def _by_end(net: nn.Module, ends: dict[str, int]) -> dict[str, list[str]]:
    order = {name: position for position, (name, _) in enumerate(net.named_modules())}
    groups: dict[str, list[str]] = {name: [] for name in ends}
    last = list(ends)[-1]
    for key, _ in net.named_parameters():
        owner = order[key.rpartition(".")[0]]
        groups[next((name for name, end in ends.items() if owner <= end), last)].append(key)
    return groups


def _by_matcher(net: Any) -> dict[str, list[str]]:
    groups = group_parameters(net, net.group_matcher(coarse=True))
    return {f"group {number}": list(keys) for number, keys in sorted(groups.items())}
