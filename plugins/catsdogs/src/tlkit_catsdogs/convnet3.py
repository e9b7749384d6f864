"""The benchmark's backbone: a small network, trained from scratch."""

from __future__ import annotations

from tlkit import Backbone, Preprocess

FILTERS = (32, 32, 64)


def convnet3() -> Backbone:
    """Three blocks of 3x3 convolution, ReLU and 2x2 max pooling, initialised as Keras does."""
    from torch import nn

    network = nn.Sequential()
    channels = 3
    for index, filters in enumerate(FILTERS, start=1):
        convolution = nn.Conv2d(channels, filters, kernel_size=3)
        nn.init.xavier_uniform_(convolution.weight)
        nn.init.zeros_(convolution.bias)  # type: ignore[arg-type]
        network.add_module(f"conv{index}", nn.Sequential(convolution, nn.ReLU(), nn.MaxPool2d(2)))
        channels = filters
    return Backbone(network, preprocess=Preprocess(size=150, resize="squash", interpolation="bilinear"))
