"""A backbone as a torch.fx graph, and what each of its values is for any batch size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from tlkit.components import untouched

#: Two batch sizes are enough to tell what grows with the batch; primes are least likely to occur by chance.
BATCHES = (5, 7)


class Whole(Exception):
    """The network is not to be split; the text is the reason."""


class _Tracer(fx.Tracer):
    """Follows a backbone's feature method, with timm's own leaves, and notes who made each node."""

    def __init__(self, method: str) -> None:
        from timm.layers import get_notrace_functions, get_notrace_modules

        functions = tuple(f for f in get_notrace_functions() if callable(f))
        super().__init__(autowrap_functions=functions)
        self.traced_func_name = method
        self._leaves = tuple(get_notrace_modules())
        self._path: list[str] = [""]

    def create_args_for_root(self, root_fn: Any, is_module: bool, concrete_args: Any = None) -> Any:
        """The images are the only input: other parameters keep their defaults, as in an ordinary call."""

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


def trace(backbone: nn.Module, method: str) -> fx.Graph:
    try:
        return _Tracer(method).trace(backbone)
    except Exception as error:  # whatever a network's own code does under tracing
        line = (str(error) or type(error).__name__).splitlines()[0]
        raise Whole(f"torch.fx cannot trace it: {line}") from error


class Opaque:
    """A value that the suffix cannot be given: neither a tensor nor a size."""


def propagate(root: nn.Module, graph: fx.Graph, example: Tensor) -> dict[fx.Node, Any]:
    """Per node, what it is for any batch size: a tensor's shapes, or a value's rule."""
    runs: list[dict[fx.Node, Any]] = []
    try:
        with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad(), untouched(root):
            runs = [_run(root, graph, example, batch) for batch in BATCHES]
    except Exception:  # an operation that cannot be followed without computing
        try:
            with torch.no_grad():
                runs = [_run(root, graph, example, batch) for batch in BATCHES]
        except Exception as error:
            line = (str(error) or type(error).__name__).splitlines()[0]
            raise Whole(f"its graph does not run: {line}") from error
    return {node: _rule(runs[0][node], runs[1][node]) for node in graph.nodes if node.op != "output"}


def _run(root: nn.Module, graph: fx.Graph, example: Tensor, batch: int) -> dict[fx.Node, Any]:
    seen: dict[fx.Node, Any] = {}

    class Recorder(fx.Interpreter):
        def run_node(self, n: fx.Node) -> Any:
            value = super().run_node(n)
            seen[n] = ("tensor", tuple(value.shape)) if isinstance(value, Tensor) else value
            return value

    images = torch.zeros(batch, *example.shape[1:], dtype=example.dtype, device=example.device)
    Recorder(root, graph=graph).run(images)
    return seen


def _rule(first: Any, second: Any) -> Any:
    """("tensor", shapes), ("constant", value), ("times", m): m times the batch size, or a list of rules."""
    if isinstance(first, tuple) and first[:1] == ("tensor",):
        return ("tensor", first[1], second[1])
    if isinstance(first, (tuple, list)):
        rules = [_rule(one, other) for one, other in zip(first, second, strict=True)]
        opaque = any(isinstance(rule, Opaque) or rule[0] == "tensor" for rule in rules)
        return Opaque() if opaque else ("list", rules)
    if isinstance(first, Tensor):
        return Opaque()
    if isinstance(first, (bool, int, float, str, type(None), torch.dtype, torch.device)):
        if first == second:
            return ("constant", first)
        if isinstance(first, int) and first * BATCHES[1] == second * BATCHES[0]:
            return ("times", first // BATCHES[0])
    return Opaque()


def is_constant(rule: Any) -> bool:
    """Whether a value is the same for any batch, and no tensor: an image's height, a type, a list of such."""
    if isinstance(rule, tuple) and rule[0] == "list":
        return all(is_constant(item) for item in rule[1])
    return isinstance(rule, tuple) and rule[0] == "constant"


def rows(values: dict[fx.Node, Any], node: fx.Node) -> tuple[int, ...]:
    """One image's part of a tensor: its first dimension must be k rows per image, the others fixed."""
    _, first, second = values[node]
    fixed = first[1:] == second[1:]
    if not first or not fixed or first[0] % BATCHES[0] or first[0] * BATCHES[1] != second[0] * BATCHES[0]:
        raise Whole(
            f"{node.name}, which crosses the frontier, has no whole number of rows per image: {first}"
        )
    return (first[0] // BATCHES[0], *first[1:])


def needed(root: nn.Module, wanted: Sequence[fx.Node]) -> list[fx.Node]:
    """The nodes that `wanted` are computed from, themselves included, in the graph's order."""
    found: set[fx.Node] = set()
    waiting = list(wanted)
    while waiting:
        node = waiting.pop()
        if node not in found:
            found.add(node)
            waiting.extend(node.all_input_nodes)
            # a statement such as x[0] = y or x.mul_(2) changes x, though nobody reads its result
            waiting.extend(user for user in node.users if not user.users and in_place(root, user))
    return [node for node in wanted[0].graph.nodes if node in found]


def in_place(root: nn.Module, node: fx.Node) -> bool:
    """Whether a node changes its first input instead of making something new."""
    if node.op == "output" or not node.all_input_nodes:
        return False
    if node.op == "call_module":
        return bool(getattr(root.get_submodule(str(node.target)), "inplace", False))
    name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
    ends = name.endswith("_") and not name.endswith("__")
    return ends or name in _IN_PLACE or bool(node.kwargs.get("inplace"))


_IN_PLACE = frozenset(
    "setitem iadd isub imul imatmul itruediv ifloordiv imod ipow iand ior ixor ilshift irshift".split()
)
