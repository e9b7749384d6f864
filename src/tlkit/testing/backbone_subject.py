"""A backbone as its checks use it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tlkit.model.classifier import Classifier
from tlkit.parts.backbone import Backbone
from tlkit.testing.runner import CLASSES, PartUnderTest


@dataclass
class Subject:
    """What the checks of a backbone are called with.

    Attributes:
        part: the backbone's factory and options.
        backbone: the backbone, with its network in evaluation mode.
    """

    part: PartUnderTest
    backbone: Backbone

    @property
    def size(self) -> int:
        """Height and width of the images, in pixels."""
        return self.backbone.preprocess.size

    def images(self, count: int, size: int | None = None) -> Tensor:
        """Returns noise ``(count, 3, size, size)``, the same on every call."""
        length = size or self.size
        generator = torch.Generator().manual_seed(1)
        return torch.randn(count, 3, length, length, generator=generator)

    def features(self, images: Tensor, module: nn.Module | None = None) -> Tensor:
        """Returns the features that the network, or a copy of it, computes from `images`."""
        with torch.no_grad():
            features: Tensor = getattr(module or self.backbone.module, self.backbone.method)(images)
        return features

    def classifier(self) -> Classifier:
        """Returns a copy of the network with a linear head, in evaluation mode."""
        head = self.part.registry.make("head", "linear", {}, self.backbone, CLASSES)
        return Classifier(self.backbone, head).eval()


def setup(part: PartUnderTest, *, size: int | None = None) -> Subject:
    """Makes the backbone, for images of `size` pixels if that is given.

    Raises:
        TypeError: the factory does not return a backbone.
    """
    with torch.random.fork_rng():
        torch.manual_seed(0)
        backbone = part.build()
    if not isinstance(backbone, Backbone):
        raise TypeError(f"the factory must return a tlkit.Backbone; it returned {type(backbone).__name__}")
    if size:
        backbone.preprocess = backbone.preprocess.override({"size": size})
    backbone.module.eval()
    return Subject(part, backbone)
