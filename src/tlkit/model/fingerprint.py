"""Hashes computations: nodes of two graphs have the same fingerprint only if they compute the same.

The graph's code alone is not enough: networks that differ in a pooling layer, a stride or a batch
norm's eps have the same code. A node's fingerprint covers its operation, its arguments, a layer's class
and hyperparameters, the contents of the tensors it reads, and its inputs' fingerprints. What cannot be
described, such as an open file, has no fingerprint: its network is trained whole, without cached features.
"""

from __future__ import annotations

import enum
import functools
import hashlib
import inspect
import sys
import types
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import PurePath
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn

from tlkit.model.tracing import NotPartitionable
from tlkit.utils.hashing import digest

Fingerprints = dict[fx.Node, str]
#: Hashes of tensors by their ids; the tensors are kept, so that no other gets the same id.
TensorHashes = dict[int, tuple[Tensor, str]]

#: Attributes of every module, which are not its hyperparameters.
_MACHINERY = frozenset({*vars(nn.Module()), "training"})
#: Attributes of every module that change what it computes, where they are not empty.
_HOOKS = ("_forward_hooks", "_forward_pre_hooks")
#: Values whose repr says all about them.
_PLAIN = (
    *(type(None), bool, int, float, complex, str, bytes, range, PurePath),
    *(torch.dtype, torch.device, torch.layout, torch.memory_format, np.dtype, np.generic),
)
#: Packages whose version stands for their code.
_VERSIONED = ("torch", "numpy", "builtins")


class Indescribable(NotPartitionable):
    """A value that no fingerprint can be made of."""


def fingerprint_graph(root: nn.Module, graph: fx.Graph, tensors: TensorHashes | None = None) -> Fingerprints:
    """Returns the fingerprint of every node of a graph.

    Args:
        root: the module that has the graph's layers and tensors.
        graph: the graph.
        tensors: hashes of tensors by their ids, to be shared by graphs of the same network.

    Raises:
        Indescribable: a node depends on something that cannot be described.
    """
    fingerprints: Fingerprints = {}
    describe = _Description({} if tensors is None else tensors)

    def reference(item: Any) -> Any:
        return _Reference(fingerprints[item]) if isinstance(item, fx.Node) else item

    for node in graph.nodes:
        target: Any = node.target
        with _naming(str(target)):
            if node.op == "call_module":
                target = describe.module(root.get_submodule(str(node.target)))
            elif node.op == "get_attr":
                target = describe(_attribute(root, str(node.target)))
            elif node.op == "call_function":
                target = describe.function(node.target)
            elif node.op in ("placeholder", "output"):
                target = node.op
            arguments: Any = fx.node.map_aggregate((node.args, node.kwargs), reference)
            fingerprints[node] = digest(node.op, target, describe(arguments))
    return fingerprints


def fingerprint_module(module: nn.Module) -> str:
    """Returns the fingerprint of a layer with everything inside it, whatever its mode.

    Raises:
        Indescribable: it has an attribute that cannot be described.
    """
    return _Description({}).module(module)


class _Reference:
    """A node's input, represented by its fingerprint."""

    def __init__(self, fingerprint: str) -> None:
        self.fingerprint = fingerprint


class _Description:
    """Converts values to something whose repr describes their content, without memory addresses."""

    def __init__(self, tensors: TensorHashes) -> None:
        self._tensors = tensors
        #: Objects that are being described: one that contains itself would have no end.
        self._inside: set[int] = set()

    def __call__(self, value: Any) -> Any:
        """Describes any value.

        Raises:
            Indescribable: it cannot be described.
        """
        if isinstance(value, enum.Enum):
            return (_name(type(value)), value.name)
        if isinstance(value, _PLAIN):
            return (type(value).__name__, repr(value))
        if isinstance(value, _Reference):
            return ("node", value.fingerprint)
        if isinstance(value, Tensor):
            return self._tensor(value)
        if isinstance(value, np.ndarray) and not value.dtype.hasobject:
            return ("array", value.dtype.str, value.shape, hashlib.sha256(value.tobytes()).hexdigest())
        with self._entered(value):
            return self._compound(value)

    def module(self, module: nn.Module) -> str:
        """Describes a layer with everything inside it."""
        if any(getattr(module, hooks, None) for hooks in _HOOKS):
            raise Indescribable("it has forward hooks")
        own = {name: value for name, value in vars(module).items() if name not in _MACHINERY}
        with self._entered(module):
            return digest(
                self._type(type(module)),
                self(own),
                [(name, self(value)) for name, value in module.named_parameters(recurse=False)],
                [(name, self(value)) for name, value in module.named_buffers(recurse=False)],
                [(name, self.module(child)) for name, child in module.named_children()],
            )

    def function(self, function: Any) -> Any:
        """Describes a function: its code, and the values that it has kept from where it was made."""
        if isinstance(function, functools.partial):
            return ("partial", self.function(function.func), self(function.args), self(function.keywords))
        if isinstance(function, types.MethodType):
            return ("method", self.function(function.__func__), self(function.__self__))
        if isinstance(function, types.FunctionType):
            cells = [cell.cell_contents for cell in function.__closure__ or () if _is_full(cell)]
            values = function.__defaults__, function.__kwdefaults__, cells
            return ("function", _name(function), _code(function), self(values))
        owner = getattr(function, "__self__", None)
        if owner is None or isinstance(owner, types.ModuleType | type):
            return ("builtin", _name(function), torch.__version__)
        raise Indescribable(f"it keeps {_name(function)} of an object")

    def _compound(self, value: Any) -> Any:
        if isinstance(value, nn.Module):
            return self.module(value)
        if isinstance(value, Mapping):
            return [(self(key), self(item)) for key, item in value.items()]
        if isinstance(value, list | tuple):
            return [self(item) for item in value]
        if isinstance(value, set | frozenset):
            return sorted(repr(self(item)) for item in value)
        if isinstance(value, slice):
            return ("slice", *(self(item) for item in (value.start, value.stop, value.step)))
        if isinstance(value, weakref.ReferenceType):  # torch's recurrent layers refer to their own weights
            return ("reference", self(value()))
        if isinstance(value, type):
            return self._type(value)
        if isinstance(value, types.ModuleType):
            return ("module", value.__name__, getattr(value, "__version__", ""))
        if callable(value) and hasattr(value, "__qualname__"):
            return self.function(value)
        if isinstance(value, functools.partial):
            return self.function(value)
        return self._object(value)

    def _object(self, value: Any) -> Any:
        """Describes any other object by what pickle would write of it: all that it consists of."""
        try:
            reduced = value.__reduce_ex__(4)
        except Exception as error:  # it may raise anything
            kind = _name(type(value))
            raise Indescribable(f"it has an attribute of type {kind}, which cannot be described") from error
        parts = [reduced] if isinstance(reduced, str) else reduced
        return (
            self._type(type(value)),
            [self(list(part)) if isinstance(part, Iterator) else self(part) for part in parts],
        )

    def _type(self, kind: type) -> Any:
        """Describes a class with its bases: their code, and the values that they have for all instances."""
        classes = [base for base in kind.__mro__ if base.__module__.partition(".")[0] not in _VERSIONED]
        shared = [
            (name, repr(value))
            for base in classes
            for name, value in vars(base).items()
            if not name.startswith("__") and isinstance(value, bool | int | float | str | tuple)
        ]
        return (_name(kind), [_class_code(base) for base in classes], shared, torch.__version__)

    def _tensor(self, value: Tensor) -> str:
        if id(value) not in self._tensors:
            plain = value.detach().cpu().contiguous()
            content: Any = plain.reshape(-1).view(torch.uint8).numpy() if plain.numel() else b""
            self._tensors[id(value)] = (
                value,
                digest(str(value.dtype), tuple(value.shape), hashlib.sha256(content).hexdigest()),
            )
        return self._tensors[id(value)][1]

    @contextmanager
    def _entered(self, value: Any) -> Iterator[None]:
        if id(value) in self._inside:
            raise Indescribable(f"it has an attribute of type {_name(type(value))} that contains itself")
        self._inside.add(id(value))
        try:
            yield
        finally:
            self._inside.discard(id(value))


@contextmanager
def _naming(node: str) -> Iterator[None]:
    """Names the layer or function that cannot be described."""
    try:
        yield
    except Indescribable as reason:
        raise Indescribable(f"{node} cannot be described: {reason}") from reason


def _attribute(root: nn.Module, path: str) -> Any:
    return functools.reduce(getattr, path.split("."), root)


def _name(value: Any) -> str:
    return f"{getattr(value, '__module__', '')}.{getattr(value, '__qualname__', value)}"


def _is_full(cell: types.CellType) -> bool:
    try:
        return cell.cell_contents is not cell
    except ValueError:  # a variable that was never set
        return False


def _code(function: types.FunctionType) -> str:
    """Returns a hash of a function's code, and of its module's, whose names it may use."""
    if function.__module__.partition(".")[0] in _VERSIONED:
        return torch.__version__
    return digest(_code_object(function.__code__), _module_code(function.__module__))


def _code_object(code: types.CodeType) -> Any:
    def constant(value: Any) -> Any:
        if isinstance(value, types.CodeType):
            return _code_object(value)
        # the order of a set's strings differs from process to process
        return sorted(map(repr, value)) if isinstance(value, frozenset) else repr(value)

    return (code.co_code.hex(), code.co_names, code.co_varnames, [*map(constant, code.co_consts)])


def _class_code(kind: type) -> Any:
    """Returns a hash of the module of a class; of one without a file, as in a notebook, its methods' code."""
    source = _module_code(kind.__module__)
    if source:
        return source
    functions = [value for value in vars(kind).values() if isinstance(value, types.FunctionType)]
    return [(function.__name__, _code_object(function.__code__)) for function in functions]


@functools.cache
def _module_code(name: str) -> str:
    """Returns a hash of a module's source, so that an edited plugin computes its features again."""
    module = sys.modules.get(name)
    try:
        return digest(inspect.getsource(module)) if module is not None else ""
    except (OSError, TypeError):
        return ""
