"""Finds the frontier on a backbone's graph, and makes the graph of what is behind it."""

from __future__ import annotations

import operator
from functools import cached_property
from typing import Any

from torch import Tensor, fx, nn

from tlkit.model.tracing import (
    BatchMultiple,
    Constant,
    Items,
    NodeValue,
    NodeValues,
    NotPartitionable,
    OpaqueValue,
    TensorValue,
    dependencies,
    is_constant,
    is_in_place,
    propagate,
    rows_per_image,
    trace,
)


class Frontier:
    """Which nodes of a backbone's graph depend on the image, and which are behind the frontier.

    Attributes:
        graph: the backbone's graph in its present mode.
        values: what each node evaluates to.
        depends: the nodes that depend on the image.
        behind: the nodes that depend on a trainable parameter.
        output: the node of the features.
        crossing: the frozen tensors that depend on the image and are read behind the frontier.
    """

    def __init__(self, root: nn.Module, method: str, trainable: set[str], example: Tensor) -> None:
        self.root = root
        self.graph = trace(root, method)
        self.values = propagate(root, self.graph, example)
        self.depends = _depending_on_image(root, self.graph, self.values)
        self.behind: set[fx.Node] = set()
        for node in self.graph.nodes:
            if not self.behind.isdisjoint(node.all_input_nodes) or _reads(root, node, trainable):
                self.behind.add(node)
        (last,) = (node for node in self.graph.nodes if node.op == "output")
        self.behind.discard(last)
        output = last.args[0]
        if not isinstance(output, fx.Node) or not isinstance(self.values[output], TensorValue):
            raise NotPartitionable("its features are not one tensor")
        self.output = output

    @cached_property
    def crossing(self) -> list[fx.Node]:
        if self.output not in self.behind:
            return [self.output]
        frozen = self.depends - self.behind
        read = [
            node
            for node in self.graph.nodes
            if node in frozen and any(user in self.behind for user in node.users)
        ]
        for node in read:
            if isinstance(self.values[node], OpaqueValue):
                raise NotPartitionable(f"{node.name} crosses the frontier and is not a tensor")
        return [node for node in read if isinstance(self.values[node], TensorValue)]

    def check_prefix(self) -> None:
        """Raises NotPartitionable if the prefix has no parameters: it is not worth caching."""
        for node in self.graph.nodes:
            if node not in self.behind and node.op in ("call_module", "get_attr"):
                target = str(node.target)
                if node.op == "get_attr" or any(True for _ in self.root.get_submodule(target).parameters()):
                    break
        else:
            raise NotPartitionable("nothing in front of the frontier has parameters")
        if any(node.op == "placeholder" for node in self.crossing):
            raise NotPartitionable("the image itself is read behind the frontier")

    def modules(self) -> list[nn.Module]:
        """Returns the modules that compute a node behind the frontier, leaf modules with all inside them."""
        modules: dict[int, nn.Module] = {}
        for node in self.behind:
            for path in node.meta["owners"]:
                module = self.root.get_submodule(path)
                modules[id(module)] = module
            if node.op == "call_module":
                for module in self.root.get_submodule(str(node.target)).modules():
                    modules[id(module)] = module
        return list(modules.values())

    def suffix(self) -> fx.Graph:
        """Returns the graph behind the frontier, with the crossing tensors as its inputs.

        What does not depend on the image is computed again; the batch size is that of the first input.
        """
        return _SuffixBuilder(self).build()


class _SuffixBuilder:
    """Copies the nodes behind a frontier into a graph of their own."""

    def __init__(self, frontier: Frontier) -> None:
        self.frontier = frontier
        self.graph = fx.Graph()
        self.copies: dict[fx.Node, Any] = {
            node: self.graph.placeholder(node.name) for node in frontier.crossing
        }
        self.first = self.copies[frontier.crossing[0]]

    def build(self) -> fx.Graph:
        frontier = self.frontier
        needed: set[fx.Node] = set()
        if frontier.output in frontier.behind:
            needed.update(dependencies(frontier.root, [frontier.output]))
        for node in frontier.graph.nodes:
            if node in self.copies or node not in needed:
                continue
            value = frontier.values[node]
            if is_constant(value) and node.op != "get_attr":
                self.copies[node] = self.compute(value)
            elif node in frontier.behind or node not in frontier.depends:
                self.copies[node] = self.graph.node_copy(node, lambda other: self.copies[other])
            elif any(user in frontier.behind for user in node.users):
                self.copies[node] = self.compute(value)
        self.graph.output(self.copies[frontier.output])
        return self.graph

    @cached_property
    def batch_size(self) -> fx.Node:
        rows = rows_per_image(self.frontier.values, self.frontier.crossing[0])[0]
        shape = self.graph.call_function(getattr, (self.first, "shape"))
        length = self.graph.call_function(operator.getitem, (shape, 0))
        return self.graph.call_function(operator.floordiv, (length, rows))

    def compute(self, value: NodeValue) -> Any:
        """Adds nodes that compute a value from the first crossing tensor."""
        if isinstance(value, Constant):
            return value.value
        if isinstance(value, BatchMultiple):
            return self.graph.call_function(operator.mul, (self.batch_size, value.factor))
        assert isinstance(value, Items)
        return tuple(self.compute(item) for item in value.values)


def _depending_on_image(root: nn.Module, graph: fx.Graph, values: NodeValues) -> set[fx.Node]:
    """Returns the nodes that depend on the image; its size does not count, being the same for all."""
    depending: set[fx.Node] = set()
    modified: set[fx.Node] = set()
    while True:
        for node in graph.nodes:
            constant = is_constant(values.get(node))
            if node.op == "placeholder" or (not constant and not depending.isdisjoint(node.all_input_nodes)):
                depending.add(node)
        # a tensor that an image is written into depends on it from the beginning
        written = {node.all_input_nodes[0] for node in depending if is_in_place(root, node)} - depending
        if not written or written <= modified:
            return depending
        modified |= written
        depending |= written


def _reads(root: nn.Module, node: fx.Node, trainable: set[str]) -> bool:
    """Returns whether a node reads a trainable parameter."""
    target = str(node.target)
    if node.op == "get_attr":
        return target in trainable
    if node.op == "call_module":
        parameters = root.get_submodule(target).named_parameters()
        return any(f"{target}.{name}" in trainable for name, _ in parameters)
    return False
