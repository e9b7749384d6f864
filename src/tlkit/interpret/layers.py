"""A network's inner layers: which there are, and what comes out of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from tlkit.errors import DataError, close_matches
from tlkit.model.classifier import Classifier

#: Layers whose channels can be maximised.
WITH_CHANNELS = (nn.Conv2d, nn.Linear)


def record_outputs(
    network: nn.Module, compute: Callable[[], Tensor]
) -> tuple[list[tuple[nn.Module, tuple[int, ...]]], Tensor]:
    """The modules that give one tensor, with its shape, in the order in which they finish; and the result."""
    seen: list[tuple[nn.Module, tuple[int, ...]]] = []

    def finished(module: nn.Module, _: Any, output: Any) -> None:
        if isinstance(output, Tensor):
            seen.append((module, tuple(output.shape)))

    hooks = [module.register_forward_hook(finished) for module in network.modules()]
    try:
        with torch.no_grad():
            result = compute()
    finally:
        for hook in hooks:
            hook.remove()
    return seen, result


def representative_layers(network: Classifier, count: int = 3) -> list[str]:
    """The last layer with channels of some of the backbone's blocks, from input to output."""
    modules = dict(network.backbone.named_modules())
    names: list[str] = []
    for block in network.blocks():
        owners = [name.removeprefix("backbone.").rpartition(".")[0] for name in block.parameters]
        inside = [owner for owner in owners if isinstance(modules.get(owner), WITH_CHANNELS)]
        names += inside[-1:]
    if len(names) <= count:
        return names
    return [names[round(place * (len(names) - 1) / (count - 1))] for place in range(count)]


def find_layer(network: Classifier, name: str) -> nn.Conv2d | nn.Linear:
    """A layer of the backbone by its name.

    Raises:
        DataError: there is none, or it has no channels.
    """
    modules = dict(network.backbone.named_modules())
    known = [key for key, module in modules.items() if isinstance(module, WITH_CHANNELS)]
    layer = modules.get(name)
    if not isinstance(layer, WITH_CHANNELS):
        what = "is no convolution and no linear layer" if name in modules else "is not there"
        hint = close_matches(name, known) or f": there are {_shortened(known)}"
        raise DataError(f"layer {name!r} of the backbone {what}{hint}")
    return layer


def channel_count(layer: nn.Conv2d | nn.Linear) -> int:
    """How many channels a layer gives."""
    return layer.out_channels if isinstance(layer, nn.Conv2d) else layer.out_features


def _shortened(names: Sequence[str]) -> str:
    return ", ".join(names) if len(names) <= 20 else f"{', '.join(names[:10])} … {', '.join(names[-10:])}"


def parse_channels(layer: nn.Conv2d | nn.Linear, text: str | None, count: int = 4) -> list[int]:
    """Channels from a text such as "0,7,30-33"; without one, `count` of them at even distances.

    Raises:
        DataError: the text does not name channels.
    """
    there = channel_count(layer)
    if text is None:
        return [place * there // min(count, there) for place in range(min(count, there))]
    found: list[int] = []
    for part in text.split(","):
        first, _, last = part.strip().partition("-")
        if not first.isdigit() or not (last or first).isdigit():
            raise DataError(f"--channels {text!r} does not name channels: write them as 0,7,30-33")
        found += range(int(first), min(int(last or first), there) + 1)
    return found
