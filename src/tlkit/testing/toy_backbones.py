"""Small networks that heads and freeze policies are checked with."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor, nn

from tlkit.parts.backbone import Backbone
from tlkit.parts.preprocess import Preprocess

FeatureForm = Literal["pooled", "map", "tokens"]
FORMS: tuple[FeatureForm, ...] = get_args(FeatureForm)
#: Height and width of the images, in pixels.
SIZE = 32
#: Channels of the features.
CHANNELS = 16


class ToyNetwork(nn.Module):
    """Three blocks with a convolution each, two of them with batch norm."""

    def __init__(self, form: FeatureForm) -> None:
        """Makes a network whose features are pooled, maps or tokens."""
        super().__init__()
        self.form = form
        self.stem = nn.Conv2d(3, 8, 3, stride=2)
        self.middle = nn.Sequential(nn.Conv2d(8, 8, 3, stride=2, bias=False), nn.BatchNorm2d(8), nn.ReLU())
        self.last = nn.Sequential(nn.Conv2d(8, CHANNELS, 3), nn.BatchNorm2d(CHANNELS), nn.ReLU())

    def forward(self, images: Tensor) -> Tensor:
        """Maps images ``(B, 3, H, W)`` to features ``(B, C, h, w)``, ``(B, N, C)`` or ``(B, C)``."""
        maps: Tensor = self.last(self.middle(self.stem(images)))
        if self.form == "pooled":
            return maps.mean((2, 3))
        return maps.flatten(2).transpose(1, 2) if self.form == "tokens" else maps


def toy_backbone(form: FeatureForm) -> Backbone:
    """Makes a backbone with features of that form, with the same weights on every call."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module, classifier = ToyNetwork(form), nn.Linear(CHANNELS, 10)
    return Backbone(module.eval(), Preprocess(size=SIZE), classifier=classifier if form == "pooled" else None)
