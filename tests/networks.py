"""Small real networks for tests: one plain, one with batch norm and residuals, one transformer."""

from __future__ import annotations

import torch

from tlkit.components import Backbone, Preprocess
from tlkit.model.classifier import Classifier
from tlkit.model.freezing import freeze, statistics_move
from tlkit.model.frontier import Split, split
from tlkit.plugins import load_registry

#: name, options: timm networks that are small or made small
KINDS = {
    "plain": ("vgg11", {"features": "map"}),
    "residual": ("resnet18", {}),
    "transformer": (
        "vit_tiny_patch16_224",
        {"model_args": {"img_size": 64, "depth": 4, "drop_path_rate": 0.2}},
    ),
}

REGISTRY = load_registry()


def backbone(kind: str, size: int = 64) -> Backbone:
    """The untrained backbone of that kind, the same on every call."""
    name, options = KINDS[kind]
    torch.manual_seed(7)
    made: Backbone = REGISTRY.make("backbone", name, {**options, "weights": "none"})
    made.preprocess = made.preprocess.override({"size": size})
    return made


def classifier(kind: str, head: str = "linear", **options: object) -> Classifier:
    """That backbone with a head for three classes."""
    base = backbone(kind)
    return Classifier(base, REGISTRY.make("head", head, options, base, ["a", "b", "c"]))


def divided(
    network: Classifier, policy: str, statistics: str | None = None, size: int = 64, **options: object
) -> tuple[Split, set[str]]:
    """The network divided by a freeze policy, and the names of what learns."""
    learning = REGISTRY.make("freeze-policy", policy, options, network)
    freeze(network, learning)
    moves = statistics_move(network, learning, statistics)
    return split(network, learning, torch.zeros(1, 3, size, size), move_statistics=moves), learning


def tiny(module: torch.nn.Module, size: int = 32) -> Backbone:
    """A backbone around any module."""
    return Backbone(module, Preprocess(size=size))
