"""Hashes computations: nodes of two graphs have the same fingerprint only if they compute the same.

The graph's code alone is not enough: networks that differ in a pooling layer, a stride or a batch
norm's eps have the same code. A node's fingerprint covers its operation, its arguments, a layer's class
and hyperparameters, the contents of the tensors it reads, and its inputs' fingerprints.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import types
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, fx, nn

from tlkit.utils.hashing import digest

Fingerprints = dict[fx.Node, str]
#: Hashes of tensors by their ids; the tensors are kept, so that no other gets the same id.
TensorHashes = dict[int, tuple[Tensor, str]]

#: Attributes of every module, which are not its hyperparameters.
_MACHINERY = frozenset({*vars(nn.Module()), "training"})


def fingerprint_graph(root: nn.Module, graph: fx.Graph, tensors: TensorHashes | None = None) -> Fingerprints:
    """Returns the fingerprint of every node of a graph.

    Args:
        root: the module that has the graph's layers and tensors.
        graph: the graph.
        tensors: hashes of tensors by their ids, to be shared by graphs of the same network.
    """
    known: Fingerprints = {}
    tensors = {} if tensors is None else tensors

    def reference(item: Any) -> Any:
        return _Reference(known[item]) if isinstance(item, fx.Node) else item

    for node in graph.nodes:
        target: Any = node.target
        if node.op == "call_module":
            target = fingerprint_module(root.get_submodule(str(node.target)), tensors)
        elif node.op == "get_attr":
            target = _value(_attribute(root, str(node.target)), tensors)
        elif node.op == "call_function":
            target = _function(node.target)
        elif node.op in ("placeholder", "output"):
            target = node.op
        arguments: Any = fx.node.map_aggregate((node.args, node.kwargs), reference)
        known[node] = digest(node.op, target, _value(arguments, tensors))
    return known


def fingerprint_module(module: nn.Module, tensors: TensorHashes | None = None) -> str:
    """Returns the fingerprint of a layer with everything inside it, whatever its mode."""
    tensors = {} if tensors is None else tensors
    own = {name: value for name, value in vars(module).items() if name not in _MACHINERY}
    kind = type(module)
    return digest(
        f"{kind.__module__}.{kind.__qualname__}",
        _source(kind),
        _value(own, tensors),
        [(name, _value(value, tensors)) for name, value in module.named_parameters(recurse=False)],
        [(name, _value(value, tensors)) for name, value in module.named_buffers(recurse=False)],
        [(name, fingerprint_module(child, tensors)) for name, child in module.named_children()],
    )


class _Reference:
    """A node's input, represented by its fingerprint."""

    def __init__(self, fingerprint: str) -> None:
        self.fingerprint = fingerprint


def _attribute(root: nn.Module, path: str) -> Any:
    return functools.reduce(getattr, path.split("."), root)


def _source(kind: type) -> str:
    """Returns a hash of the class's code unless it is torch's, so that an edited plugin gets new features."""
    if kind.__module__.startswith("torch."):
        return torch.__version__
    try:
        return digest(inspect.getsource(kind))
    except (OSError, TypeError):
        return ""


def _function(target: Any) -> str:
    name = f"{getattr(target, '__module__', '')}.{getattr(target, '__qualname__', target)}"
    if isinstance(target, types.FunctionType) and not name.startswith("torch."):
        try:
            return digest(name, inspect.getsource(target))
        except OSError:
            return name
    return name


def _tensor(value: Tensor, tensors: TensorHashes) -> str:
    if id(value) not in tensors:
        plain = value.detach().cpu().contiguous()
        content: Any = plain.reshape(-1).view(torch.uint8).numpy() if plain.numel() else b""
        tensors[id(value)] = (
            value,
            digest(str(value.dtype), tuple(value.shape), hashlib.sha256(content).hexdigest()),
        )
    return tensors[id(value)][1]


def _value(value: Any, tensors: TensorHashes) -> Any:
    """Converts `value` to something whose repr describes its content, without memory addresses."""
    if value is None or isinstance(value, (bool, int, float, complex, str, bytes)):
        return value
    if isinstance(value, _Reference):
        return ("node", value.fingerprint)
    if isinstance(value, Tensor):
        return _tensor(value, tensors)
    if isinstance(value, nn.Module):
        return fingerprint_module(value, tensors)
    if isinstance(value, Mapping):
        return [(str(key), _value(item, tensors)) for key, item in value.items()]
    if isinstance(value, (list, tuple)):
        return [_value(item, tensors) for item in value]
    if isinstance(value, (set, frozenset)):
        return sorted(repr(_value(item, tensors)) for item in value)
    if isinstance(value, slice):
        return ("slice", *(_value(item, tensors) for item in (value.start, value.stop, value.step)))
    if isinstance(value, functools.partial):
        return ("partial", _value((value.func, value.args, value.keywords), tensors))
    if isinstance(value, type):
        return f"{value.__module__}.{value.__qualname__}"
    if callable(value) and hasattr(value, "__qualname__"):
        return _function(value)
    if hasattr(value, "__dict__"):
        return (f"{type(value).__module__}.{type(value).__qualname__}", _value(vars(value), tensors))
    return repr(value)  # dtypes, devices, layouts
