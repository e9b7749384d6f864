"""A plugin with a backbone of 16 numbers, so that what is measured is everything but the network."""

from __future__ import annotations

import torch
from torch import nn

import tlkit


@tlkit.hookimpl
def tlkit_backbones(register: tlkit.Register) -> None:
    register("tiny", tiny)


def tiny() -> tlkit.Backbone:
    """One convolution of images of 8 pixels, and a global average of 16 channels."""
    torch.manual_seed(0)
    pooling = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return tlkit.Backbone(
        nn.Sequential(nn.Conv2d(3, 16, 3, 4), nn.ReLU(), pooling), preprocess=tlkit.Preprocess(size=8)
    )
