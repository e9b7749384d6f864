"""Folds batch norms into the convolutions in front of them, for networks that only infer.

A batch norm in evaluation mode scales and shifts each channel by constants, and so does a convolution with
other weights. Folding saves a pass over all activations (Jacob et al. 2018, https://arxiv.org/abs/1712.05877,
section 3.2); torch's own `fuse_conv_bn_eval` computes the weights.
"""

from __future__ import annotations

import operator
from collections.abc import Collection, Sequence
from typing import Any

import torch
from timm.layers import BatchNormAct2d, Conv2dSame
from torch import Tensor, fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from tlkit.model.classifier import Classifier
from tlkit.model.fingerprint import Fingerprints
from tlkit.model.tracing import dependencies, trace
from tlkit.runtime.devices import ComputeConfig
from tlkit.utils.hashing import digest

#: How much a folded network's features may differ, as a part of the largest: rounding is far below it.
TOLERANCE = 1e-3


class FoldedClassifier(nn.Module):
    """A classifier as it predicts: batch norms folded, where its backbone can be traced.

    It shares the other weights with the classifier; a later change of the classifier is not taken up.

    Attributes:
        head: the classifier's.
        folded: the backbone with batch norms folded; None if it has none or cannot be traced, and is used as
            it is.
    """

    def __init__(self, classifier: Classifier, size: int, compute: ComputeConfig) -> None:
        """Folds the batch norms of a classifier that is in evaluation mode, on its device.

        Args:
            classifier: the classifier.
            size: height and width of the images that it will be given.
            compute: where and how precisely features are computed; head and features are float32.
        """
        super().__init__()
        self.head = classifier.head
        self.folded = _fold_backbone(classifier, size, compute.device)
        self._whole = classifier.features
        self._compute = compute

    def features(self, images: Tensor) -> Tensor:
        """Maps images ``(B, 3, H, W)`` to features ``(B, C, h, w)``, ``(B, N, C)`` or ``(B, C)``."""
        with self._compute.autocast():
            features = self._whole(images) if self.folded is None else self.folded(images)[0]
            return features.float()


@torch.inference_mode()
def _fold_backbone(classifier: Classifier, size: int, device: torch.device) -> fx.GraphModule | None:
    """Returns a classifier's backbone with batch norms folded, or None if it has none or cannot be traced."""
    root = classifier.backbone
    if not any(isinstance(module, nn.BatchNorm2d) for module in root.modules()):
        return None
    # two, since some networks squeeze a batch of one away
    images = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0)).to(device)
    try:
        graph = trace(root, classifier.method)
        (output,) = (node.args[0] for node in graph.nodes if node.op == "output")
        # only cached features need fingerprints
        folded = fold_prefix(root, dependencies(root, [output]), [output], dict.fromkeys(graph.nodes, ""))
        (features,) = folded(images)
    except Exception:  # whatever a network's code raises under tracing, or as a graph
        return None
    expected = classifier.features(images)
    same = (features - expected).abs().max() <= TOLERANCE * expected.abs().max()
    return folded if same else None


def fold_prefix(
    root: nn.Module, nodes: Sequence[fx.Node], targets: Sequence[fx.Node], fingerprints: Fingerprints
) -> fx.GraphModule:
    """Makes a network of a part of a graph, from the image to the `targets`, with batch norms folded.

    Args:
        root: the module whose submodules the nodes call, in evaluation mode; its current weights are used.
        nodes: the part's nodes, in the graph's order.
        targets: those of its nodes that it returns, as a tuple.
        fingerprints: of the nodes. Each node of the result has one in ``meta["fingerprint"]``: nodes of two
            networks with the same fingerprint compute the same, to the bit.
    """
    graph = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    layers: dict[str, Any] = {}
    norms = {node.all_input_nodes[0]: node for node in nodes if _folds(root, node, targets)}
    folded = {norm: convolution for convolution, norm in norms.items()}

    def call(node: fx.Node, kind: str, module: nn.Module) -> fx.Node:
        layers[f"{kind}_{node.name}"] = module
        return graph.call_module(f"{kind}_{node.name}", (copies[node.all_input_nodes[0]],))

    for node in nodes:
        inputs = [copies[other].meta["fingerprint"] for other in node.all_input_nodes]
        if node in norms:
            norm = norms[node]
            copies[node] = call(node, "folded", fuse_conv_bn_eval(_layer(root, node), _layer(root, norm)))
            fingerprint = digest("folded", fingerprints[node], fingerprints[norm], inputs)
        elif node in folded and type(_layer(root, node)) is nn.BatchNorm2d:
            copies[node] = copies[folded[node]]
            continue
        elif node in folded:
            copies[node] = call(node, "activation", _layer(root, node).act)
            fingerprint = digest("activation", fingerprints[node], inputs)
        else:
            copies[node] = graph.node_copy(node, lambda other: copies[other])
            if node.op in ("call_module", "get_attr"):
                layers[str(node.target)] = operator.attrgetter(str(node.target))(root)
            fingerprint = digest(fingerprints[node], inputs)
        copies[node].meta["fingerprint"] = fingerprint
    graph.output(tuple(copies[node] for node in targets))
    return fx.GraphModule(layers, graph)


def _folds(root: nn.Module, norm: fx.Node, targets: Collection[fx.Node]) -> bool:
    """Returns whether a node is a batch norm that is the only reader of a convolution's output."""
    if norm.op != "call_module" or type(_layer(root, norm)) not in (nn.BatchNorm2d, BatchNormAct2d):
        return False
    convolution = norm.all_input_nodes[0]
    return (
        convolution.op == "call_module"
        and type(_layer(root, convolution)) in (nn.Conv2d, Conv2dSame)
        and len(convolution.users) == 1
        and convolution not in targets
        and _layer(root, norm).running_mean is not None
        and not any(_has_effects(_layer(root, node)) for node in (convolution, norm))
    )


def _has_effects(layer: nn.Module) -> bool:
    """Returns whether a layer has hooks, or is in training mode since it is used behind the frontier too."""
    return bool(layer._forward_hooks or layer._forward_pre_hooks or layer.training)


def _layer(root: nn.Module, node: fx.Node) -> Any:
    return root.get_submodule(str(node.target))
