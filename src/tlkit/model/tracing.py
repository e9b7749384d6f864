"""Traces a backbone as a torch.fx graph, and determines how each of its values depends on the batch size."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from tlkit.parts.shapes import preserve_values, shapes_only

#: Two batch sizes are enough to tell what grows with the batch; primes rarely occur by chance.
BATCH_SIZES = (5, 7)

_IN_PLACE_OPERATORS = frozenset(
    "setitem iadd isub imul imatmul itruediv ifloordiv imod ipow iand ior ixor ilshift irshift".split()
)

#: What a network may ask a tensor that depends on where it is.
_DEVICE_ATTRIBUTES = frozenset({"device", "is_cpu", "is_cuda", "is_meta", "is_mps", "is_xpu"})
_DEVICE_METHODS = frozenset({"get_device", "type"})


class NotPartitionable(Exception):
    """The network cannot be divided at a frontier; the text is the reason."""


@dataclass(frozen=True, slots=True)
class TensorValue:
    """A tensor, by its shapes for the two `BATCH_SIZES`."""

    shapes: tuple[tuple[int, ...], tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class Constant:
    """A plain value that is the same for every batch size, such as an image's height."""

    value: Any


@dataclass(frozen=True, slots=True)
class BatchMultiple:
    """An integer that is `factor` times the batch size."""

    factor: int


@dataclass(frozen=True, slots=True)
class Items:
    """A tuple or list of constants and batch multiples."""

    values: tuple[SuffixValue, ...]


@dataclass(frozen=True, slots=True)
class OpaqueValue:
    """A value that cannot be handed across the frontier: neither a tensor nor made of sizes."""


#: A value that can be computed behind the frontier without the prefix.
SuffixValue = Constant | BatchMultiple | Items
#: What a graph's node evaluates to, for any batch size.
NodeValue = TensorValue | SuffixValue | OpaqueValue
NodeValues = dict[fx.Node, NodeValue]


def trace(backbone: nn.Module, method: str) -> fx.Graph:
    """Traces a backbone's feature method; each node's ``meta["owners"]`` names the modules it is inside.

    Raises:
        NotPartitionable: torch.fx cannot trace it.
    """
    try:
        return _Tracer(method).trace(backbone)
    except Exception as error:  # anything that a network's own code raises under tracing
        line = (str(error) or type(error).__name__).splitlines()[0]
        raise NotPartitionable(f"torch.fx cannot trace it: {line}") from error


class _Tracer(fx.Tracer):
    """Traces with timm's own leaf modules and functions, and records the modules around each node."""

    def __init__(self, method: str) -> None:
        from timm.layers import get_notrace_functions, get_notrace_modules

        functions = tuple(function for function in get_notrace_functions() if callable(function))
        super().__init__(autowrap_functions=functions)
        self.traced_func_name = method
        self._leaves = tuple(get_notrace_modules())
        self._path: list[str] = [""]

    def create_args_for_root(self, root_fn: Any, is_module: bool, concrete_args: Any = None) -> Any:
        """Makes the images the only input: other parameters keep their defaults, as in an ordinary call."""

        def images_only(module: nn.Module, images: Tensor) -> Any:
            return root_fn(module, images)

        return super().create_args_for_root(images_only, is_module, concrete_args)

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, self._leaves) or super().is_leaf_module(m, module_qualified_name)

    def call_module(self, m: nn.Module, forward: Any, args: Any, kwargs: Any) -> Any:
        self._path.append(self.path_of_module(m))
        try:
            return super().call_module(m, forward, args, kwargs)
        finally:
            self._path.pop()

    def create_node(self, *args: Any, **kwargs: Any) -> fx.Node:
        node = super().create_node(*args, **kwargs)
        node.meta["owners"] = tuple(self._path)
        return node


def propagate(root: nn.Module, graph: fx.Graph, example: Tensor) -> NodeValues:
    """Determines what each node evaluates to for any batch size, by running the graph with two of them.

    Raises:
        NotPartitionable: the graph does not run.
    """
    runs: list[dict[fx.Node, Any]] = []
    if not any(_asks_for_device(node) for node in graph.nodes):
        with suppress(Exception), shapes_only(root):  # an operation that looks at values
            runs = [_run(root, graph, example.to("meta"), batch) for batch in BATCH_SIZES]
    if not runs:
        try:
            with preserve_values(root):
                runs = [_run(root, graph, example, batch) for batch in BATCH_SIZES]
        except Exception as error:
            line = (str(error) or type(error).__name__).splitlines()[0]
            raise NotPartitionable(f"its graph does not run: {line}") from error
    first, second = runs
    return {node: _compare(first[node], second[node]) for node in graph.nodes if node.op != "output"}


def _asks_for_device(node: fx.Node) -> bool:
    """Returns whether a node's value depends on where its tensor is."""
    if node.op == "call_method":
        return node.target in _DEVICE_METHODS
    return node.target is getattr and node.args[1] in _DEVICE_ATTRIBUTES


@dataclass(frozen=True, slots=True)
class _Shape:
    """A tensor's shape in one run, kept in place of the tensor."""

    lengths: tuple[int, ...]


def _run(root: nn.Module, graph: fx.Graph, example: Tensor, batch: int) -> dict[fx.Node, Any]:
    """Runs the graph on a batch of zeros; returns each node's value, tensors replaced by their shapes."""
    values: dict[fx.Node, Any] = {}

    class Recorder(fx.Interpreter):
        def run_node(self, n: fx.Node) -> Any:
            value = super().run_node(n)
            values[n] = _Shape(tuple(value.shape)) if isinstance(value, Tensor) else value
            return value

    images = torch.zeros(batch, *example.shape[1:], dtype=example.dtype, device=example.device)
    Recorder(root, graph=graph).run(images)
    return values


def _compare(first: Any, second: Any) -> NodeValue:
    """Generalises the values that a node has in two runs with different batch sizes."""
    if isinstance(first, _Shape):
        return TensorValue((first.lengths, second.lengths))
    if isinstance(first, (tuple, list)):
        values = tuple(_compare(one, other) for one, other in zip(first, second, strict=True))
        simple = tuple(value for value in values if not isinstance(value, (TensorValue, OpaqueValue)))
        return Items(simple) if len(simple) == len(values) else OpaqueValue()
    if isinstance(first, (bool, int, float, str, type(None), torch.dtype, torch.device)):
        if first == second:
            return Constant(first)
        if isinstance(first, int) and first * BATCH_SIZES[1] == second * BATCH_SIZES[0]:
            return BatchMultiple(first // BATCH_SIZES[0])
    return OpaqueValue()


def is_constant(value: NodeValue | None) -> bool:
    """Returns whether a value is the same for every batch: an image's height, a type, a list of such."""
    if isinstance(value, Items):
        return all(is_constant(item) for item in value.values)
    return isinstance(value, Constant)


def rows_per_image(values: NodeValues, node: fx.Node) -> tuple[int, ...]:
    """Returns the shape of one image's part of a tensor: k rows per image, and the other dimensions.

    Raises:
        NotPartitionable: the first dimension is not a multiple of the batch size, or another one varies.
    """
    value = values[node]
    assert isinstance(value, TensorValue)
    first, second = value.shapes
    small, large = BATCH_SIZES
    fixed = first[1:] == second[1:]
    if not first or not fixed or first[0] % small or first[0] * large != second[0] * small:
        raise NotPartitionable(
            f"{node.name}, which crosses the frontier, has no whole number of rows per image: {first}"
        )
    return (first[0] // small, *first[1:])


def dependencies(root: nn.Module, targets: Sequence[fx.Node]) -> list[fx.Node]:
    """Returns the nodes that `targets` are computed from, themselves included, in the graph's order."""
    reached: set[fx.Node] = set()
    pending = list(targets)
    while pending:
        node = pending.pop()
        if node not in reached:
            reached.add(node)
            pending.extend(node.all_input_nodes)
            # a statement such as x[0] = y or x.mul_(2) changes x, though nothing reads its result
            pending.extend(user for user in node.users if not user.users and is_in_place(root, user))
    return [node for node in targets[0].graph.nodes if node in reached]


def is_in_place(root: nn.Module, node: fx.Node) -> bool:
    """Returns whether a node modifies its first input instead of making a new value."""
    if node.op == "output" or not node.all_input_nodes:
        return False
    if node.op == "call_module":
        return bool(getattr(root.get_submodule(str(node.target)), "inplace", False))
    name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
    underscore = name.endswith("_") and not name.endswith("__")
    return underscore or name in _IN_PLACE_OPERATORS or bool(node.kwargs.get("inplace"))
