"""Small networks to try heads and freeze policies on."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tlkit.parts.backbone import Backbone
from tlkit.parts.preprocess import Preprocess

SIZE = 32
#: Channels of every example's features.
CHANNELS = 16


class ToyNetwork(nn.Module):
    """Three blocks of convolution, two with batch norm; features as maps, tokens or pooled."""

    def __init__(self, form: str) -> None:
        super().__init__()
        self.form = form
        self.stem = nn.Conv2d(3, 8, 3, stride=2)
        self.middle = nn.Sequential(nn.Conv2d(8, 8, 3, stride=2, bias=False), nn.BatchNorm2d(8), nn.ReLU())
        self.last = nn.Sequential(nn.Conv2d(8, CHANNELS, 3), nn.BatchNorm2d(CHANNELS), nn.ReLU())

    def forward(self, images: Tensor) -> Tensor:
        """Images ``(B, 3, H, W)`` to ``(B, C, h, w)``, ``(B, N, C)`` or ``(B, C)``."""
        maps: Tensor = self.last(self.middle(self.stem(images)))
        if self.form == "pooled":
            return maps.mean((2, 3))
        return maps.flatten(2).transpose(1, 2) if self.form == "tokens" else maps


def toy_backbone(form: str) -> Backbone:
    """A backbone with "pooled", "map" or "tokens" features, the same on every call."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module, classifier = ToyNetwork(form), nn.Linear(CHANNELS, 10)
    return Backbone(module.eval(), Preprocess(size=SIZE), classifier=classifier if form == "pooled" else None)


FORMS = ("pooled", "map", "tokens")
