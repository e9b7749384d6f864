"""A backbone and a head as one network."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import Tensor, nn

from tlkit.parts.backbone import Backbone, Block

if TYPE_CHECKING:
    from tlkit.model.folding import FoldedClassifier

Module = TypeVar("Module", bound=nn.Module)


class Classifier(nn.Module):
    """Images to logits: a backbone's features, then a head.

    Its parameters are named ``backbone.…`` and ``head.…``; freeze policies use these names.
    """

    def __init__(self, backbone: Backbone, head: nn.Module) -> None:
        """Copies the backbone's network, so that several classifiers can start from the same one."""
        super().__init__()
        self.backbone = copy.deepcopy(backbone.module)
        self.head = head
        self.method = backbone.method
        self._blocks = tuple(
            replace(block, parameters=tuple(f"backbone.{name}" for name in block.parameters))
            for block in backbone.blocks()
        )
        layers = backbone.layers or (*(block.parameters for block in backbone.blocks()), ())
        self._layers = {f"backbone.{name}": number for number, names in enumerate(layers) for name in names}
        self._head_layer = len(layers) - 1

    def features(self, images: Tensor) -> Tensor:
        """Maps images ``(B, 3, H, W)`` to features ``(B, C, h, w)``, ``(B, N, C)`` or ``(B, C)``."""
        features: Tensor = getattr(self.backbone, self.method)(images)
        return features

    def forward(self, images: Tensor) -> Tensor:
        """Maps images ``(B, 3, H, W)`` to logits ``(B, classes)``."""
        logits: Tensor = self.head(self.features(images))
        return logits

    def blocks(self) -> Sequence[Block]:
        """Returns the backbone's blocks from input to output, with this network's parameter names."""
        return self._blocks

    def layer(self, name: str) -> int:
        """Returns the layer of a parameter, counted from the input; the head is in the last one."""
        return self._layers.get(name, self._head_layer)

    def count(self, names: set[str]) -> int:
        """Returns the number of elements in the named parameters."""
        return sum(value.numel() for name, value in self.named_parameters() if name in names)


class PredictionNetwork(nn.Module):
    """What is computed of images in prediction: logits, and how new they are, in one pass."""

    def __init__(
        self, classifier: Classifier | FoldedClassifier, detector: nn.Module | None, *, mirror: bool
    ) -> None:
        """Takes the network's parts.

        Args:
            classifier: the classifier.
            detector: maps pooled features ``(B, C)`` to novelty ``(B,)``; None: it is not computed.
            mirror: whether logits and features are the mean over an image and its mirror image.
        """
        super().__init__()
        self.classifier = classifier
        self.detector = detector
        self.mirror = mirror

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Maps images ``(B, 3, H, W)`` to logits ``(B, classes)`` and, with a detector, novelty ``(B,)``."""
        views = [self.classifier.features(images)]
        if self.mirror:
            views.append(self.classifier.features(images.flip(3)))
        logits = torch.stack([self.classifier.head(features) for features in views]).mean(0)
        if self.detector is None:
            return (logits,)
        return logits, self.detector(torch.stack([average_positions(view) for view in views]).mean(0))


def average_positions(features: Tensor) -> Tensor:
    """Maps features ``(B, C, h, w)``, ``(B, N, C)`` or ``(B, C)`` to pooled ones ``(B, C)``."""
    # maps have their channels first, tokens last
    return features.mean(((), (1,), (2, 3))[features.ndim - 2]) if features.ndim > 2 else features


def is_convolutional(module: nn.Module) -> bool:
    """Returns whether channels-last is the faster layout: most weights are in 2-d convolutions."""
    convolutions = sum(layer.weight.numel() for layer in module.modules() if isinstance(layer, nn.Conv2d))
    return 2 * convolutions > sum(value.numel() for value in module.parameters())


def to_layout(module: Module, device: torch.device) -> Module:
    """Moves `module` to `device`, in channels-last layout where that is faster."""
    layout = torch.channels_last if is_convolutional(module) else torch.contiguous_format
    return module.to(device=device, memory_format=layout)  # type: ignore[call-overload,no-any-return]
