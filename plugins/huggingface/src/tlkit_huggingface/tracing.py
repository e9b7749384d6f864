"""Traces a model of `transformers` as a torch.fx graph of its layers, so that tlkit can partition it.

The model's forward checks types and returns output objects, which tlkit's own tracing cannot follow. Here it
is traced once, from layer to layer but not into them; the layers themselves remain those of transformers.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
import transformers
from timm.layers import register_notrace_module
from torch import Tensor, fx, nn

from tlkit import Block
from tlkit_huggingface.models import base_model


class FeatureNetwork(nn.Module):
    """A model that returns its features as one tensor."""

    def __init__(self, model: Any, features: str, *, had_classifier: bool) -> None:
        """Wraps a model.

        Args:
            model: a base model, or a classification model.
            features: "pooled" or "map".
            had_classifier: whether its last layer was removed; its logits are then the pooled features.
        """
        super().__init__()
        self._output = "logits" if had_classifier and features == "pooled" else features
        self.net = model if self._output == "logits" else base_model(model)
        self._has_maps = False
        self._has_class_token = any(name.endswith("cls_token") for name, _ in self.net.named_parameters())

    def forward(self, images: Tensor) -> Tensor:
        """Maps images ``(B, 3, H, W)`` to ``(B, C)``, ``(B, N, C)`` or ``(B, C, h, w)``."""
        output = self.net(pixel_values=images)
        if self._output == "logits":
            return output.logits  # type: ignore[no-any-return]
        last: Tensor = output.last_hidden_state
        if self._output == "map":
            return last
        pooled: Tensor | None = getattr(output, "pooler_output", None)
        if pooled is not None:
            return pooled.flatten(1)
        if isinstance(last, Tensor):  # an ordinary call: a traced value does not know its shape
            self._has_maps = last.ndim == 4
        if self._has_maps:
            return last.mean((2, 3))
        return last[:, 0] if self._has_class_token else last.mean(1)


class Untraceable(nn.Module):
    """A model whose forward cannot be traced: it trains whole, and `reason` says why."""

    def __init__(self, network: FeatureNetwork, reason: str) -> None:
        super().__init__()
        self.network = network
        self.reason = reason

    def forward(self, images: Tensor) -> Tensor:
        """Returns the same as `FeatureNetwork`, but refuses to be traced."""
        if isinstance(images, fx.Proxy):
            raise NotImplementedError(self.reason)
        features: Tensor = self.network(images)
        return features


def traceable(network: FeatureNetwork, size: int) -> tuple[nn.Module, list[Block]]:
    """Returns the network as a graph of its layers where that is possible, and its blocks.

    The graph's output is compared with the model's own; one that differs is not used.

    Args:
        network: the model, in evaluation mode.
        size: of the images that both are compared on, in pixels.

    Raises:
        ValueError: its features are not a tensor.
    """
    images = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = network(images)
    if not isinstance(expected, Tensor):
        raise ValueError(f"its features are not a tensor but {type(expected).__name__}")
    try:
        graph, layers = _trace(network)
        with torch.no_grad():
            features = graph.forward(images)  # calling the module itself would print errors
    except Exception as error:  # whatever a model's own code does under tracing
        return _untraceable(network, (str(error) or type(error).__name__).splitlines()[0])
    if features.shape != expected.shape or not torch.allclose(features, expected, atol=1e-6):
        return _untraceable(network, "its graph does not give the model's own features")
    return graph, _blocks(_in_order_of_use(graph), layers)


def _untraceable(network: FeatureNetwork, reason: str) -> tuple[nn.Module, list[Block]]:
    module = Untraceable(network.eval(), reason)
    return module, _blocks((name for name, _ in module.named_parameters()), _layers(module))


class _Float32OnCpu(fx.Proxy):
    """A traced value of known type and device: tlkit makes networks in float32 on the CPU."""

    dtype = torch.float32
    device = torch.device("cpu")


class _Tracer(fx.Tracer):
    """Traces into modules that contain layers, and into no others."""

    def __init__(self, layers: Iterable[str]) -> None:
        super().__init__()
        self._parents = {parent for layer in layers for parent in _parents(layer)}

    def proxy(self, node: fx.Node) -> fx.Proxy:
        return _Float32OnCpu(node, self)

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return module_qualified_name not in self._parents


def _trace(network: FeatureNetwork) -> tuple[fx.GraphModule, list[str]]:
    """Returns the graph of a network's layers, and the names of the layers."""
    graph = _Tracer(_layers(network)).trace(network)
    for node in graph.nodes:
        if node.op in ("call_module", "get_attr"):  # the names that transformers uses
            node.target = node.target.removeprefix("net.")
    module = fx.GraphModule(network.net, graph, type(network.net).__name__)
    module.graph.eliminate_dead_code()
    module.delete_all_unused_submodules()
    module.recompile()
    for node in module.graph.nodes:
        if node.op == "call_module":
            _make_leaf(module.get_submodule(str(node.target)))
    return module.eval(), _layers(network.net)


def _make_leaf(module: nn.Module) -> None:
    """Keeps tlkit's tracing, which uses timm's list of leaf modules, out of a layer of transformers."""
    if not type(module).__module__.startswith("torch."):
        register_notrace_module(type(module))
        # part of the cached features' key: another version may compute differently
        module.made_by = transformers.__version__


def _layers(root: nn.Module) -> list[str]:
    """Returns the members of the outermost module lists: encoder layers, or stages."""
    layers: list[str] = []

    def visit(module: nn.Module, path: str) -> None:
        for name, child in module.named_children():
            child_path = f"{path}.{name}" if path else name
            if isinstance(module, nn.ModuleList) and not isinstance(child, nn.ModuleList):
                layers.append(child_path)
            else:
                visit(child, child_path)

    visit(root, "")
    return layers


def _parents(layer: str) -> Iterator[str]:
    """Yields the modules that contain a layer, the root included."""
    while layer:
        layer = layer.rpartition(".")[0]
        yield layer


def _in_order_of_use(graph: fx.GraphModule) -> Iterator[str]:
    """Yields the parameters' names in the order of their use."""
    names = dict.fromkeys(name for name, _ in graph.named_parameters())
    for node in graph.graph.nodes:
        target = str(node.target)
        if node.op == "get_attr":
            yield from (name for name in names if name == target)
        elif node.op == "call_module":
            yield from (name for name in names if name.startswith(f"{target}."))


def _blocks(parameters: Iterable[str], layers: Iterable[str]) -> list[Block]:
    """Makes a block per layer, and one for what precedes them; other parameters join the block in front."""
    groups: dict[str, list[str]] = {}
    current = "embeddings"
    for name in dict.fromkeys(parameters):
        current = next((layer for layer in layers if name.startswith(f"{layer}.")), current)
        groups.setdefault(current, []).append(name)
    return [Block(name, tuple(names)) for name, names in groups.items()]
