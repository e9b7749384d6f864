"""Batch norms folded into the convolutions in front of them, for networks that only infer.

A batch norm in evaluation mode scales and shifts each channel by fixed numbers; so does a convolution
with other weights. The layer that is saved is a pass over all activations (Jacob et al. 2018,
https://arxiv.org/abs/1712.05877, section 3.2); torch's own `fuse_conv_bn_eval` computes the weights.
"""

from __future__ import annotations

import operator
from collections.abc import Collection, Sequence
from typing import Any

from timm.layers import BatchNormAct2d, Conv2dSame
from torch import fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from tlkit.hashing import digest
from tlkit.model.fingerprint import Fingerprints


def frozen_part(
    root: nn.Module, nodes: Sequence[fx.Node], wanted: Sequence[fx.Node], prints: Fingerprints
) -> fx.GraphModule:
    """A part of a graph as a network of its own, from the image to the `wanted` nodes, folded.

    Args:
        root: what the nodes' names are looked up in, in evaluation mode; its weights are used as they
            are now.
        nodes: the part, in the graph's order.
        wanted: those of its nodes that it is to give, as a tuple.
        prints: the nodes' fingerprints. Each node of the result has one in ``meta["fingerprint"]``: two
            networks' nodes that have the same compute the same, to the bit.
    """
    part = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    targets: dict[str, Any] = {}
    norms = {node.all_input_nodes[0]: node for node in nodes if _folds(root, node, wanted)}
    folded = {norm: convolution for convolution, norm in norms.items()}

    def layer(node: fx.Node, kind: str, module: nn.Module) -> fx.Node:
        targets[f"{kind}_{node.name}"] = module
        return part.call_module(f"{kind}_{node.name}", (copies[node.all_input_nodes[0]],))

    for node in nodes:
        before = [copies[other].meta["fingerprint"] for other in node.all_input_nodes]
        if node in norms:
            norm = norms[node]
            copies[node] = layer(node, "folded", fuse_conv_bn_eval(_layer(root, node), _layer(root, norm)))
            name = digest("folded", prints[node], prints[norm], before)
        elif node in folded and type(_layer(root, node)) is nn.BatchNorm2d:
            copies[node] = copies[folded[node]]
            continue
        elif node in folded:
            copies[node] = layer(node, "activation", _layer(root, node).act)
            name = digest("activation", prints[node], before)
        else:
            copies[node] = part.node_copy(node, lambda other: copies[other])
            if node.op in ("call_module", "get_attr"):
                targets[str(node.target)] = operator.attrgetter(str(node.target))(root)
            name = digest(prints[node], before)
        copies[node].meta["fingerprint"] = name
    part.output(tuple(copies[node] for node in wanted))
    return fx.GraphModule(targets, part)


def _folds(root: nn.Module, norm: fx.Node, wanted: Collection[fx.Node]) -> bool:
    """Whether a node is a batch norm that alone reads a convolution's output, and both do just that."""
    if norm.op != "call_module" or type(_layer(root, norm)) not in (nn.BatchNorm2d, BatchNormAct2d):
        return False
    convolution = norm.all_input_nodes[0]
    return (
        convolution.op == "call_module"
        and type(_layer(root, convolution)) in (nn.Conv2d, Conv2dSame)
        and len(convolution.users) == 1
        and convolution not in wanted
        and _layer(root, norm).running_mean is not None
        and not any(_does_more(_layer(root, node)) for node in (convolution, norm))
    )


def _does_more(layer: nn.Module) -> bool:
    """Whether a layer has hooks, or is in training mode because it is used behind the frontier too."""
    return bool(layer._forward_hooks or layer._forward_pre_hooks or layer.training)


def _layer(root: nn.Module, node: fx.Node) -> Any:
    return root.get_submodule(str(node.target))
