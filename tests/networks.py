"""Small real networks for tests: one plain, one with batch norm and residuals, one transformer."""

from __future__ import annotations

from typing import Literal

import torch

from tlkit.model.classifier import Classifier
from tlkit.model.freezing import freeze, updates_statistics
from tlkit.model.partition import Partition, partition
from tlkit.parts.backbone import Backbone
from tlkit.parts.preprocess import Preprocess
from tlkit.plugins.loader import load_registry

#: name, options: timm networks that are small or made small
KINDS = {
    "plain": ("vgg11", {"features": "map", "model_args": {"mlp_ratio": 0.01}}),
    "residual": ("resnet18", {}),
    "transformer": (
        "vit_tiny_patch16_224",
        {"model_args": {"img_size": 64, "depth": 4, "drop_path_rate": 0.2}},
    ),
}

REGISTRY = load_registry()


def backbone(kind: str, size: int = 64) -> Backbone:
    """Returns the untrained backbone of that kind, the same on every call."""
    name, options = KINDS[kind]
    torch.manual_seed(7)
    network: Backbone = REGISTRY.make("backbone", name, {**options, "weights": "none"})
    network.preprocess = network.preprocess.override({"size": size})
    return network


def classifier(kind: str, head: str = "linear", **options: object) -> Classifier:
    """Returns that backbone with a head for three classes."""
    base = backbone(kind)
    return Classifier(base, REGISTRY.make("head", head, options, base, ["a", "b", "c"]))


def partitioned(
    network: Classifier,
    policy: str,
    statistics: Literal["learn", "keep"] | None = None,
    size: int = 64,
    **options: object,
) -> tuple[Partition, set[str]]:
    """Returns the network partitioned by a freeze policy, and the names of the trainable parameters."""
    trainable = REGISTRY.make("freeze-policy", policy, options, network)
    freeze(network, trainable)
    updates = updates_statistics(network, trainable, statistics)
    example = torch.zeros(1, 3, size, size)
    return partition(network, trainable, example, update_statistics=updates), trainable


def tiny(module: torch.nn.Module, size: int = 32) -> Backbone:
    """Returns a backbone around any module."""
    return Backbone(module, Preprocess(size=size))
