"""The inner layers of a network: their names, their channels and their outputs."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from tlkit.errors import DataError, close_matches
from tlkit.model.classifier import Classifier
from tlkit.utils.formatting import shortlist

#: A layer whose channels can be maximised.
Layer = nn.Conv2d | nn.Linear
#: How many layers an error lists.
LAYERS_SHOWN = 20


class ModuleOutput(NamedTuple):
    """A module that returned one tensor, and the tensor's shape."""

    module: nn.Module
    shape: tuple[int, ...]


def record_outputs(network: nn.Module, compute: Callable[[], Tensor]) -> tuple[list[ModuleOutput], Tensor]:
    """Records the modules that return one tensor while `compute` runs, without gradients.

    Returns:
        These modules in the order in which they finish, and the result of `compute`.
    """
    outputs: list[ModuleOutput] = []

    def record(module: nn.Module, _: object, output: object) -> None:
        if isinstance(output, Tensor):
            outputs.append(ModuleOutput(module, tuple(output.shape)))

    hooks = [module.register_forward_hook(record) for module in network.modules()]
    try:
        with torch.no_grad():
            result = compute()
    finally:
        for hook in hooks:
            hook.remove()
    return outputs, result


def representative_layers(network: Classifier, count: int = 3) -> list[str]:
    """Returns the names of `count` layers of the backbone at even distances, from input to output.

    Each is the last layer with channels in its block; all of these if there are no more than `count`.
    """
    modules = dict(network.backbone.named_modules())
    names: list[str] = []
    for block in network.blocks():
        owners = [name.removeprefix("backbone.").rpartition(".")[0] for name in block.parameters]
        layers = [owner for owner in owners if isinstance(modules.get(owner), Layer)]
        names += layers[-1:]
    if len(names) <= count:
        return names
    return [names[round(index * (len(names) - 1) / (count - 1))] for index in range(count)]


def find_layer(network: Classifier, name: str) -> Layer:
    """Returns a layer of the backbone by its name.

    Raises:
        DataError: it does not exist, or has no channels.
    """
    modules = dict(network.backbone.named_modules())
    layer = modules.get(name)
    if isinstance(layer, Layer):
        return layer
    known = [key for key, module in modules.items() if isinstance(module, Layer)]
    problem = "is neither a convolution nor a linear layer" if name in modules else "does not exist"
    hint = close_matches(name, known) or f": there are {shortlist(known, LAYERS_SHOWN)}"
    raise DataError(f"layer {name!r} of the backbone {problem}{hint}")


def channel_count(layer: Layer) -> int:
    """Returns the number of output channels of a layer."""
    return layer.out_channels if isinstance(layer, nn.Conv2d) else layer.out_features


def parse_channels(layer: Layer, text: str | None, count: int = 4) -> list[int]:
    """Parses a list of channels such as "0,7,30-33"; None stands for `count` channels at even distances.

    Raises:
        DataError: the string is not a list of channels.
    """
    total = channel_count(layer)
    if text is None:
        count = min(count, total)
        return [index * total // count for index in range(count)]
    channels: list[int] = []
    for part in text.split(","):
        first, _, last = part.strip().partition("-")
        if not first.isdigit() or not (last or first).isdigit():
            raise DataError(f"--channels {text!r} is not a list of channels: write them as 0,7,30-33")
        channels += range(int(first), min(int(last or first), total) + 1)
    return channels
