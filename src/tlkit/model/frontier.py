"""Where the first learning parameter is met: the network in front of it, and the network behind.

Everything in front of the frontier is a fixed function of the image, so its outputs can be kept.
The frontier is found on a torch.fx graph of the backbone; the head is always behind it.
"""

from __future__ import annotations

import operator
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from tlkit.model.classifier import Classifier
from tlkit.model.fingerprint import Fingerprints, fingerprint_graph
from tlkit.model.freezing import set_modes

#: Two batch sizes are enough to tell what grows with the batch; primes are least likely to occur by chance.
BATCHES = (5, 7)


@dataclass(frozen=True, slots=True)
class Boundary:
    """One tensor that crosses the frontier.

    Attributes:
        node: its place in `Split.graph`.
        fingerprint: what it is a function of, besides the image.
        shape: of one image's part, its first dimension the rows per image.
    """

    node: fx.Node
    fingerprint: str
    shape: tuple[int, ...]


class Whole(Exception):
    """The network is not to be split; the text is the reason."""


class Split(nn.Module):
    """A classifier divided at its frontier; calling it runs the part that learns.

    Its `train` and `eval` set the mode of every layer: what lies in front of the frontier, and every
    batch norm whose statistics must not move, stays in evaluation mode however often they are called.

    Attributes:
        classifier: the network itself; the parts share its parameters.
        boundaries: the tensors that cross the frontier; empty when nothing can be kept.
        why_not: why nothing can be kept, or None.
        graph: the backbone's graph in evaluation mode, of which the prefix is a part; None when whole.
        root: the module that the graph's names are looked up in.
    """

    def __init__(self, classifier: Classifier, learning: Collection[str], *, move_statistics: bool) -> None:
        super().__init__()
        self.classifier = classifier
        self.boundaries: tuple[Boundary, ...] = ()
        self.why_not: str | None = None
        self.graph: fx.Graph | None = None
        self.root: nn.Module = classifier.backbone
        self._move_statistics = move_statistics
        self._prefix: nn.Module | None = None
        self._suffixes: dict[bool, nn.Module] = {}
        self._behind: list[nn.Module] | None = None
        self._head_learns = any(name.startswith("head.") for name in learning)

    def prefix(self, images: Tensor) -> tuple[Tensor, ...]:
        """Images ``(B, 3, H, W)`` to the tensors that cross the frontier, without gradients.

        When nothing can be kept these are the images themselves.
        """
        if self._prefix is None:
            return (images,)
        with torch.no_grad():
            crossing: tuple[Tensor, ...] = self._prefix(images)
        return crossing

    def forward(self, *crossing: Tensor) -> Tensor:
        """What crosses the frontier to logits ``(B, classes)``."""
        if self._prefix is None:
            logits: Tensor = self.classifier(*crossing)
            return logits
        features = self._suffixes[self.training](*crossing)
        logits = self.classifier.head(features)
        return logits

    def train(self, mode: bool = True) -> Split:
        """Sets the mode of the part that learns; see the class."""
        self.training = mode
        set_modes(
            self.classifier.backbone, self._behind, training=mode, move_statistics=self._move_statistics
        )
        self.classifier.training = mode
        self.classifier.head.train(mode and self._head_learns)
        return self


def split(classifier: Classifier, learning: Collection[str], example: Tensor, *, move_statistics: bool) -> Split:
    """Divides `classifier` at the frontier that the `learning` parameters make.

    Args:
        classifier: the network.
        learning: names of the parameters that learn.
        example: one image ``(1, 3, H, W)`` of the size to come; only its shape and type count.
        move_statistics: whether batch norms behind the frontier update their running statistics.

    Returns:
        The divided network; one that cannot be divided trains whole, and `why_not` says why.
    """
    result = Split(classifier, learning, move_statistics=move_statistics)
    inside = {name.removeprefix("backbone.") for name in learning if name.startswith("backbone.")}
    try:
        _divide(result, inside, example)
    except Whole as reason:
        result.why_not = str(reason)
        result.graph, result.boundaries, result._prefix = None, (), None
        result._behind = _behind_first(classifier.backbone, inside)
    result.eval()
    return result


def _divide(result: Split, learning: set[str], example: Tensor) -> None:
    backbone, method = result.classifier.backbone, result.classifier.method
    if not any(True for _ in backbone.parameters()):
        raise Whole("the backbone has no parameters")
    if learning and all(name in learning for name, _ in backbone.named_parameters()):
        raise Whole("everything learns")
    backbone.eval()
    graph = _trace(backbone, method)
    side = _Side(backbone, graph, learning)
    values = _propagate(backbone, graph, example)
    crossing = side.crossing(values)
    prints = fingerprint_graph(backbone, graph)
    shapes = [_rows(values, node) for node in crossing]
    _check_prefix(backbone, graph, side, crossing)
    result.graph = graph
    result.boundaries = tuple(
        Boundary(node, prints[node], shape) for node, shape in zip(crossing, shapes, strict=True)
    )
    result._prefix = _prefix(backbone, graph, crossing)
    result._suffixes = {False: _suffix(backbone, graph, side, crossing, values)}
    if any(boundary.shape[0] > 1 for boundary in result.boundaries):
        _check_rows(result, example)
    result._behind = _owners(backbone, side)
    result._suffixes[True] = _training_suffix(result, learning, prints, crossing, example)


def _training_suffix(
    result: Split, learning: set[str], prints: Fingerprints, crossing: list[fx.Node], example: Tensor
) -> nn.Module:
    """The suffix as it is in training: tracing bakes dropout and its like in, so it is traced again."""
    backbone = result.classifier.backbone
    if not learning:
        return result._suffixes[False]
    set_modes(backbone, result._behind, training=True, move_statistics=result._move_statistics)
    try:
        graph = _trace(backbone, result.classifier.method)
        side = _Side(backbone, graph, learning)
        values = _propagate(backbone, graph, example)
        again = side.crossing(values)
        known = fingerprint_graph(backbone, graph)
        if [known[node] for node in again] != [prints[node] for node in crossing]:
            raise Whole("its frontier is another in training than in evaluation")
        return _suffix(backbone, graph, side, again, values)
    finally:
        backbone.eval()


class _Tracer(fx.Tracer):
    """Follows a backbone's feature method, with timm's own leaves, and notes who made each node."""

    def __init__(self, method: str) -> None:
        from timm.layers import get_notrace_functions, get_notrace_modules

        functions = tuple(f for f in get_notrace_functions() if callable(f))
        super().__init__(autowrap_functions=functions)
        self.traced_func_name = method
        self._leaves = tuple(get_notrace_modules())
        self._path: list[str] = [""]

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


def _trace(backbone: nn.Module, method: str) -> fx.Graph:
    try:
        return _Tracer(method).trace(backbone)
    except Exception as error:  # whatever a network's own code does under tracing
        line = (str(error) or type(error).__name__).splitlines()[0]
        raise Whole(f"torch.fx cannot trace it: {line}") from error


class _Side:
    """For each node: does it depend on the image, and does it lie behind the frontier?"""

    def __init__(self, root: nn.Module, graph: fx.Graph, learning: set[str]) -> None:
        self.graph = graph
        self.depends: set[fx.Node] = set()
        self.behind: set[fx.Node] = set()
        for node in graph.nodes:
            inputs = node.all_input_nodes
            if node.op == "placeholder" or not self.depends.isdisjoint(inputs):
                self.depends.add(node)
            if not self.behind.isdisjoint(inputs) or _reads(root, node, learning):
                self.behind.add(node)
        (self.output,) = (node for node in graph.nodes if node.op == "output")
        self.behind.discard(self.output)

    def crossing(self, values: dict[fx.Node, Any]) -> list[fx.Node]:
        """The frozen tensors that depend on the image and are read behind the frontier."""
        made = self.output.args[0]
        if not isinstance(made, fx.Node) or not isinstance(values[made], tuple):
            raise Whole("its features are not one tensor")
        if made not in self.behind:
            return [made]
        frozen = self.depends - self.behind
        read = [
            node
            for node in self.graph.nodes
            if node in frozen and any(user in self.behind for user in node.users)
        ]
        for node in read:
            if isinstance(values[node], _Opaque):
                raise Whole(f"{node.name} crosses the frontier and is no tensor")
        return [node for node in read if isinstance(values[node], tuple) and values[node][0] == "tensor"]


def _reads(root: nn.Module, node: fx.Node, learning: set[str]) -> bool:
    target = str(node.target)
    if node.op == "get_attr":
        return target in learning
    if node.op == "call_module":
        return any(f"{target}.{name}" in learning for name, _ in root.get_submodule(target).named_parameters())
    return False


class _Opaque:
    """A value that the suffix cannot be given: neither a tensor nor a size."""


def _propagate(root: nn.Module, graph: fx.Graph, example: Tensor) -> dict[fx.Node, Any]:
    """Per node, what it is for any batch size: a tensor's shapes, or a value's rule."""
    runs: list[dict[fx.Node, Any]] = []
    try:
        with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
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

    images = torch.zeros(batch, *example.shape[1:], dtype=example.dtype)
    Recorder(root, graph=graph).run(images)
    return seen


def _rule(first: Any, second: Any) -> Any:
    """("tensor", shapes), ("constant", value), ("times", m): m times the batch size, or a list of rules."""
    if isinstance(first, tuple) and first[:1] == ("tensor",):
        return ("tensor", first[1], second[1])
    if isinstance(first, (tuple, list)):
        rules = [_rule(one, other) for one, other in zip(first, second, strict=True)]
        opaque = any(isinstance(rule, _Opaque) or rule[0] == "tensor" for rule in rules)
        return _Opaque() if opaque else ("list", rules)
    if isinstance(first, Tensor):
        return _Opaque()
    if isinstance(first, (bool, int, float, str, type(None), torch.dtype, torch.device)):
        if first == second:
            return ("constant", first)
        if isinstance(first, int) and first * BATCHES[1] == second * BATCHES[0]:
            return ("times", first // BATCHES[0])
    return _Opaque()


def _rows(values: dict[fx.Node, Any], node: fx.Node) -> tuple[int, ...]:
    """One image's part of a tensor: its first dimension must be k rows per image, the others fixed."""
    _, first, second = values[node]
    fixed = first[1:] == second[1:]
    if not first or not fixed or first[0] % BATCHES[0] or first[0] * BATCHES[1] != second[0] * BATCHES[0]:
        raise Whole(f"{node.name}, which crosses the frontier, has no whole number of rows per image: {first}")
    return (first[0] // BATCHES[0], *first[1:])


def _check_rows(result: Split, example: Tensor) -> None:
    """Several rows per image must lie together and in the images' order."""
    device = next(result.classifier.backbone.parameters()).device
    images = torch.randn(2, *example.shape[1:], generator=torch.Generator().manual_seed(0)).to(device)
    both = result.prefix(images)
    single = [result.prefix(image[None]) for image in images]
    for number, tensor in enumerate(both):
        apart = torch.cat([parts[number] for parts in single])
        if not torch.allclose(tensor, apart, rtol=1e-3, atol=1e-4):
            raise Whole("the rows of an image do not lie together where the frontier is")


def _check_prefix(root: nn.Module, graph: fx.Graph, side: _Side, crossing: Sequence[fx.Node]) -> None:
    """A prefix without parameters is not worth keeping."""
    behind = side.behind
    for node in graph.nodes:
        if node not in behind and node.op in ("call_module", "get_attr"):
            target = str(node.target)
            if node.op == "get_attr" or any(True for _ in root.get_submodule(target).parameters()):
                break
    else:
        raise Whole("nothing in front of the frontier has parameters")
    if any(node.op == "placeholder" for node in crossing):
        raise Whole("the image itself is read behind the frontier")


def _prefix(root: nn.Module, graph: fx.Graph, crossing: Sequence[fx.Node]) -> fx.GraphModule:
    part = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    for node in needed(crossing):
        copies[node] = part.node_copy(node, lambda other: copies[other])
    part.output(tuple(copies[node] for node in crossing))
    return fx.GraphModule(root, part)


def needed(wanted: Sequence[fx.Node]) -> list[fx.Node]:
    """The nodes that `wanted` are computed from, themselves included, in the graph's order."""
    found: set[fx.Node] = set()
    waiting = list(wanted)
    while waiting:
        node = waiting.pop()
        if node not in found:
            found.add(node)
            waiting.extend(node.all_input_nodes)
            # a statement such as x[0] = y or x.mul_(2) changes x, though nobody reads its result
            waiting.extend(user for user in node.users if not user.users and _changes(user, node))
    return [node for node in wanted[0].graph.nodes if node in found]


def _changes(user: fx.Node, node: fx.Node) -> bool:
    if user.op == "output" or not user.args or user.args[0] is not node:
        return False
    name = user.target if isinstance(user.target, str) else getattr(user.target, "__name__", "")
    return name == "setitem" or (name.endswith("_") and not name.endswith("__"))


def _suffix(
    root: nn.Module, graph: fx.Graph, side: _Side, crossing: Sequence[fx.Node], values: dict[fx.Node, Any]
) -> fx.GraphModule:
    """The graph behind the frontier, its inputs the crossing tensors.

    What does not depend on the image is computed here again; a size that does is read off the first input.
    """
    part = fx.Graph()
    copies: dict[fx.Node, Any] = {node: part.placeholder(node.name) for node in crossing}
    made = side.output.args[0]
    rows = _rows(values, crossing[0])[0]
    batch: list[fx.Node] = []

    def batch_size() -> fx.Node:
        if not batch:
            shape = part.call_function(getattr, (copies[crossing[0]], "shape"))
            length = part.call_function(operator.getitem, (shape, 0))
            batch.append(part.call_function(operator.floordiv, (length, rows)))
        return batch[0]

    def value(rule: Any) -> Any:
        if rule[0] == "constant":
            return rule[1]
        if rule[0] == "times":
            return part.call_function(operator.mul, (batch_size(), rule[1]))
        return tuple(value(item) for item in rule[1])

    wanted = set(needed([made])) if made in side.behind else set()
    for node in graph.nodes:
        if node in copies or node not in wanted:
            continue
        if node in side.behind or node not in side.depends:
            copies[node] = part.node_copy(node, lambda other: copies[other])
        elif any(user in side.behind for user in node.users):
            copies[node] = value(values[node])
    part.output(copies[made])
    return fx.GraphModule(root, part)


def _owners(root: nn.Module, side: _Side) -> list[nn.Module]:
    """The modules that made a node behind the frontier; of those that were not looked into, all of it."""
    found: dict[int, nn.Module] = {}
    for node in side.behind:
        for path in node.meta["owners"]:
            module = root.get_submodule(path)
            found[id(module)] = module
        if node.op == "call_module":
            for module in root.get_submodule(str(node.target)).modules():
                found[id(module)] = module
    return list(found.values())


def _behind_first(root: nn.Module, learning: set[str]) -> list[nn.Module] | None:
    """Without a graph: the modules registered from the first that learns, and those that hold it."""
    order = list(root.named_modules())
    owners = {name.rpartition(".")[0] for name in learning}
    first = next((place for place, (name, _) in enumerate(order) if name in owners), None)
    if first is None:
        return None
    holders = order[first][0]
    return [
        module
        for place, (name, module) in enumerate(order)
        if place >= first or not name or f"{holders}.".startswith(f"{name}.")
    ]
