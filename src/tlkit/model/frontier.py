"""Where the first learning parameter is met: the network in front of it, and the network behind.

Everything in front of the frontier is a fixed function of the image, so its outputs can be kept.
The frontier is found on a torch.fx graph of the backbone; the head is always behind it.
"""

from __future__ import annotations

import operator
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import Tensor, fx, nn

from tlkit.model.classifier import Classifier
from tlkit.model.fingerprint import Fingerprints, fingerprint_graph
from tlkit.model.folding import frozen_part
from tlkit.model.freezing import set_modes
from tlkit.model.tracing import Opaque, Whole, in_place, is_constant, needed, propagate, rows, trace


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


class Split(nn.Module):
    """A classifier divided at its frontier; calling it runs the part that learns.

    Its `train` and `eval` set the mode of every layer: what lies in front of the frontier, and every
    batch norm whose statistics must not move, stays in evaluation mode however often they are called.

    Attributes:
        classifier: the network itself; the parts share its parameters.
        boundaries: the tensors that cross the frontier; empty when nothing can be kept.
        why_not: why nothing can be kept, or None.
        graph: the backbone's graph in evaluation mode; None when whole.
        fingerprints: of the graph's nodes.
    """

    def __init__(self, classifier: Classifier, learning: Collection[str], *, move_statistics: bool) -> None:
        super().__init__()
        self.classifier = classifier
        self.boundaries: tuple[Boundary, ...] = ()
        self.why_not: str | None = None
        self.graph: fx.Graph | None = None
        self.fingerprints: Fingerprints = {}
        self._move_statistics = move_statistics
        # in a dictionary, out of sight of state_dict: they share the classifier's parameters
        self._parts: dict[str, nn.Module] = {}
        self._behind: list[nn.Module] | None = None
        self._head_learns = any(name.startswith("head.") for name in learning)

    @property
    def root(self) -> nn.Module:
        """The module that the graph's names are looked up in."""
        return self.classifier.backbone

    def refresh(self) -> None:
        """To be called after other weights were loaded: makes what was computed of them anew."""
        if self.graph is not None:
            self._parts.pop("frozen", None)
            self.fingerprints = fingerprint_graph(self.root, self.graph)
            self.boundaries = tuple(
                replace(boundary, fingerprint=self.fingerprints[boundary.node])
                for boundary in self.boundaries
            )

    def reads_in_front(self) -> set[str]:
        """The names of the parameters and buffers that the kept features depend on."""
        names: set[str] = set()
        if not self.boundaries:
            return names
        for node in needed(self.root, [boundary.node for boundary in self.boundaries]):
            if node.op == "get_attr":
                names.add(f"backbone.{node.target}")
            elif node.op == "call_module":
                state = self.root.get_submodule(str(node.target)).state_dict()
                names.update(f"backbone.{node.target}.{name}" for name in state)
        return names

    @property
    def frozen(self) -> fx.GraphModule:
        """The part in front of the frontier, as `frozen_part` makes it; only where there are boundaries."""
        if "frozen" not in self._parts:
            wanted = [boundary.node for boundary in self.boundaries]
            nodes = needed(self.root, wanted)
            self._parts["frozen"] = frozen_part(self.root, nodes, wanted, self.fingerprints)
        return cast(fx.GraphModule, self._parts["frozen"])

    def prefix(self, images: Tensor) -> tuple[Tensor, ...]:
        """Images ``(B, 3, H, W)`` to the tensors that cross the frontier, without gradients.

        When nothing can be kept these are the images themselves.
        """
        if not self.boundaries:
            return (images,)
        with torch.no_grad():
            crossing: tuple[Tensor, ...] = self.frozen(images)
        return crossing

    def forward(self, *crossing: Tensor) -> Tensor:
        """What crosses the frontier to logits ``(B, classes)``."""
        if not self._parts:
            logits: Tensor = self.classifier(*crossing)
            return logits
        features = self._parts["training" if self.training else "evaluation"](*crossing)
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


def split(
    classifier: Classifier, learning: Collection[str], example: Tensor, *, move_statistics: bool
) -> Split:
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
        result.graph, result.boundaries, result._parts = None, (), {}
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
    graph = trace(backbone, method)
    values = propagate(backbone, graph, example)
    side = _Side(backbone, graph, learning, values)
    crossing = side.crossing(values)
    prints = fingerprint_graph(backbone, graph)
    shapes = [rows(values, node) for node in crossing]
    _check_prefix(backbone, graph, side, crossing)
    result.graph, result.fingerprints = graph, prints
    result.boundaries = tuple(
        Boundary(node, prints[node], shape) for node, shape in zip(crossing, shapes, strict=True)
    )
    result._parts["evaluation"] = _suffix(backbone, graph, side, crossing, values)
    if any(boundary.shape[0] > 1 for boundary in result.boundaries):
        _checkrows(result, example)
    result._behind = _owners(backbone, side)
    result._parts["training"] = _training_suffix(result, learning, prints, crossing, example)


def _training_suffix(
    result: Split, learning: set[str], prints: Fingerprints, crossing: list[fx.Node], example: Tensor
) -> nn.Module:
    """The suffix as it is in training: tracing bakes dropout and its like in, so it is traced again."""
    backbone = result.classifier.backbone
    if not learning:
        return result._parts["evaluation"]
    set_modes(backbone, result._behind, training=True, move_statistics=result._move_statistics)
    try:
        graph = trace(backbone, result.classifier.method)
        values = propagate(backbone, graph, example)
        side = _Side(backbone, graph, learning, values)
        again = side.crossing(values)
        known = fingerprint_graph(backbone, graph)
        if [known[node] for node in again] != [prints[node] for node in crossing]:
            raise Whole("its frontier is another in training than in evaluation")
        return _suffix(backbone, graph, side, again, values)
    finally:
        backbone.eval()


class _Side:
    """For each node: does it depend on the image, and does it lie behind the frontier?"""

    def __init__(
        self, root: nn.Module, graph: fx.Graph, learning: set[str], values: dict[fx.Node, Any]
    ) -> None:
        self.graph = graph
        self.depends = _depending(root, graph, values)
        self.behind: set[fx.Node] = set()
        for node in graph.nodes:
            if not self.behind.isdisjoint(node.all_input_nodes) or _reads(root, node, learning):
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
            if isinstance(values[node], Opaque):
                raise Whole(f"{node.name} crosses the frontier and is no tensor")
        return [node for node in read if isinstance(values[node], tuple) and values[node][0] == "tensor"]


def _depending(root: nn.Module, graph: fx.Graph, values: dict[fx.Node, Any]) -> set[fx.Node]:
    """The nodes that depend on the image: its size does not, being the same for all."""
    found: set[fx.Node] = set()
    changed: set[fx.Node] = set()
    while True:
        for node in graph.nodes:
            fixed = is_constant(values.get(node))
            if node.op == "placeholder" or (not fixed and not found.isdisjoint(node.all_input_nodes)):
                found.add(node)
        # what an image is written into depends on it from the beginning
        written = {node.all_input_nodes[0] for node in found if in_place(root, node)} - found
        if not written or written <= changed:
            return found
        changed |= written
        found |= written


def _reads(root: nn.Module, node: fx.Node, learning: set[str]) -> bool:
    target = str(node.target)
    if node.op == "get_attr":
        return target in learning
    if node.op == "call_module":
        return any(
            f"{target}.{name}" in learning for name, _ in root.get_submodule(target).named_parameters()
        )
    return False


def _checkrows(result: Split, example: Tensor) -> None:
    """Several rows per image must lie together and in the images' order."""
    device = next(result.classifier.backbone.parameters()).device
    images = torch.randn(2, *example.shape[1:], generator=torch.Generator().manual_seed(0)).to(device)
    both = result.prefix(images)
    single = [result.prefix(image[None]) for image in images]
    for number, tensor in enumerate(both):
        first, second = (parts[number] for parts in single)
        # the distance of two images is what their rows in a wrong order are apart, whatever the precision
        if not (tensor - torch.cat([first, second])).norm() <= 0.1 * (first - second).norm():
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


def _suffix(
    root: nn.Module, graph: fx.Graph, side: _Side, crossing: Sequence[fx.Node], values: dict[fx.Node, Any]
) -> fx.GraphModule:
    """The graph behind the frontier, its inputs the crossing tensors.

    What does not depend on the image is computed here again; a size that does is read off the first input.
    """
    part = fx.Graph()
    copies: dict[fx.Node, Any] = {node: part.placeholder(node.name) for node in crossing}
    made = side.output.args[0]
    per_image = rows(values, crossing[0])[0]
    batch: list[fx.Node] = []

    def batch_size() -> fx.Node:
        if not batch:
            shape = part.call_function(getattr, (copies[crossing[0]], "shape"))
            length = part.call_function(operator.getitem, (shape, 0))
            batch.append(part.call_function(operator.floordiv, (length, per_image)))
        return batch[0]

    def value(rule: Any) -> Any:
        if rule[0] == "constant":
            return rule[1]
        if rule[0] == "times":
            return part.call_function(operator.mul, (batch_size(), rule[1]))
        return tuple(value(item) for item in rule[1])

    wanted = set(needed(root, [made])) if made in side.behind else set()
    for node in graph.nodes:
        if node in copies or node not in wanted:
            continue
        if is_constant(values[node]) and node.op != "get_attr":
            copies[node] = value(values[node])
        elif node in side.behind or node not in side.depends:
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
