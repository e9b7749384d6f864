"""A model of `transformers` as a torch.fx graph of its layers, so that tlkit can divide it.

Its outer forward asks for types and makes output objects, which tlkit's own tracing cannot follow. Here it
is followed once, from layer to layer and never into one; the layers themselves stay transformers' own.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
import transformers
from timm.layers import register_notrace_module
from torch import Tensor, fx, nn

from tlkit import Block
from tlkit_huggingface.models import base_of


class Reading(nn.Module):
    """A model, and which of its outputs are the features."""

    def __init__(self, model: Any, features: str, *, is_classified: bool) -> None:
        """See the class.

        Args:
            model: a base model, or a classification model.
            features: "pooled" or "map".
            is_classified: whether it is one whose last layer was taken off, which gives what that would see.
        """
        super().__init__()
        self._output = "logits" if is_classified and features == "pooled" else features
        self.net = model if self._output == "logits" else base_of(model)
        self._gives_maps = False
        self._has_class_token = any(name.endswith("cls_token") for name, _ in self.net.named_parameters())

    def forward(self, images: Tensor) -> Tensor:
        """Images ``(B, 3, H, W)`` to ``(B, C)``, ``(B, N, C)`` or ``(B, C, h, w)``."""
        output = self.net(pixel_values=images)
        if self._output == "logits":
            return output.logits  # type: ignore[no-any-return]
        last: Tensor = output.last_hidden_state
        if self._output == "map":
            return last
        pooled: Tensor | None = getattr(output, "pooler_output", None)
        if pooled is not None:
            return pooled.flatten(1)
        if isinstance(last, Tensor):  # noted in an ordinary call, since a traced value does not say
            self._gives_maps = last.ndim == 4
        if self._gives_maps:
            return last.mean((2, 3))
        return last[:, 0] if self._has_class_token else last.mean(1)


class Undivided(nn.Module):
    """A model whose forward cannot be followed: it trains whole, and the reason is told."""

    def __init__(self, reading: Reading, reason: str) -> None:
        super().__init__()
        self.reading = reading
        self.reason = reason

    def forward(self, images: Tensor) -> Tensor:
        """As `Reading`."""
        if isinstance(images, fx.Proxy):
            raise NotImplementedError(self.reason)
        features: Tensor = self.reading(images)
        return features


def divisible(reading: Reading, size: int) -> tuple[nn.Module, list[Block]]:
    """The network that gives these features, as a graph of its layers where that can be, and its blocks.

    The graph is compared with the model's own answer; one that differs is not used.

    Args:
        reading: the model, in evaluation mode.
        size: of the images that both are compared on.
    """
    images = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = reading(images)
    if not isinstance(expected, Tensor):
        raise ValueError(f"it gives no features but {type(expected).__name__}")
    try:
        network, layers = _graph(reading)
        with torch.no_grad():
            found = network.forward(images)  # a plain call would print what goes wrong
    except Exception as error:  # whatever a model's own code does under tracing
        return _whole(reading, (str(error) or type(error).__name__).splitlines()[0])
    if found.shape != expected.shape or not torch.allclose(found, expected, atol=1e-6):
        return _whole(reading, "its graph does not give the model's own features")
    return network, _blocks(_called(network), layers)


def _whole(reading: Reading, reason: str) -> tuple[nn.Module, list[Block]]:
    network = Undivided(reading.eval(), reason)
    return network, _blocks((name for name, _ in network.named_parameters()), _layers(network))


class _Known(fx.Proxy):
    """A value under tracing, of which the type and the device are known: tlkit makes networks so."""

    dtype = torch.float32
    device = torch.device("cpu")


class _Tracer(fx.Tracer):
    """Follows everything that holds layers, and nothing else."""

    def __init__(self, layers: Iterable[str]) -> None:
        super().__init__()
        self._holders = {holder for layer in layers for holder in _holders(layer)}

    def proxy(self, node: fx.Node) -> fx.Proxy:
        return _Known(node, self)

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return module_qualified_name not in self._holders


def _graph(reading: Reading) -> tuple[fx.GraphModule, list[str]]:
    graph = _Tracer(_layers(reading)).trace(reading)
    for node in graph.nodes:
        if node.op in ("call_module", "get_attr"):  # names as transformers has them
            node.target = node.target.removeprefix("net.")
    network = fx.GraphModule(reading.net, graph, type(reading.net).__name__)
    network.graph.eliminate_dead_code()
    network.delete_all_unused_submodules()
    network.recompile()
    for node in network.graph.nodes:
        if node.op == "call_module":
            _make_leaf(network.get_submodule(str(node.target)))
    return network.eval(), _layers(reading.net)


def _make_leaf(module: nn.Module) -> None:
    """Keeps tlkit's tracing, which has timm's leaves, out of a layer of transformers'."""
    if not type(module).__module__.startswith("torch."):
        register_notrace_module(type(module))
        # a part of what kept features are found by: another version may compute otherwise
        module.made_by = transformers.__version__


def _layers(root: nn.Module) -> list[str]:
    """The members of the outermost lists of modules: encoder layers, or stages."""
    found: list[str] = []

    def look(module: nn.Module, path: str) -> None:
        for name, child in module.named_children():
            below = f"{path}.{name}" if path else name
            if isinstance(module, nn.ModuleList) and not isinstance(child, nn.ModuleList):
                found.append(below)
            else:
                look(child, below)

    look(root, "")
    return found


def _holders(layer: str) -> Iterator[str]:
    """The modules that a layer is in, the root included."""
    while layer:
        layer = layer.rpartition(".")[0]
        yield layer


def _called(network: fx.GraphModule) -> Iterator[str]:
    """The parameters' names in the order of their use."""
    known = dict.fromkeys(name for name, _ in network.named_parameters())
    for node in network.graph.nodes:
        target = str(node.target)
        if node.op == "get_attr":
            yield from (name for name in known if name == target)
        elif node.op == "call_module":
            yield from (name for name in known if name.startswith(f"{target}."))


def _blocks(parameters: Iterable[str], layers: Iterable[str]) -> list[Block]:
    """A block per layer, and one for what comes before; what is between or behind joins the one in front."""
    groups: dict[str, list[str]] = {}
    current = "embeddings"
    for name in dict.fromkeys(parameters):
        current = next((layer for layer in layers if name.startswith(f"{layer}.")), current)
        groups.setdefault(current, []).append(name)
    return [Block(name, tuple(names)) for name, names in groups.items()]
