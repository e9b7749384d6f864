"""The benchmark's network: layers, blocks, initial weights and preprocessing."""

from __future__ import annotations

import math

import torch
from tlkit_catsdogs.convnet3 import convnet3
from torch import nn


def test_its_layers() -> None:
    backbone = convnet3()
    layers = [layer for layer in backbone.module.modules() if not isinstance(layer, nn.Sequential)]
    assert [type(layer) for layer in layers] == [nn.Conv2d, nn.ReLU, nn.MaxPool2d] * 3
    shapes = [tuple(value.shape) for value in backbone.module.parameters() if value.ndim == 4]
    assert shapes == [(32, 3, 3, 3), (32, 32, 3, 3), (64, 32, 3, 3)]
    assert sum(value.numel() for value in backbone.module.parameters()) == 896 + 9248 + 18496  # Keras' counts
    assert backbone.feature_shape == (64, 17, 17)
    assert backbone.module(torch.zeros(2, 3, 150, 150)).shape == (2, 64, 17, 17)


def test_its_blocks() -> None:
    assert [(block.name, block.parameters) for block in convnet3().blocks()] == [
        (name, (f"{name}.0.weight", f"{name}.0.bias")) for name in ("conv1", "conv2", "conv3")
    ]


def test_its_weights_are_initialised_as_in_keras() -> None:
    torch.manual_seed(0)
    for layer in convnet3().module.modules():
        if isinstance(layer, nn.Conv2d):
            limit = math.sqrt(6 / (9 * (layer.in_channels + layer.out_channels)))
            largest = float(layer.weight.detach().abs().max())
            assert 0.95 * limit < largest <= limit
            assert layer.bias is not None and not layer.bias.any()


def test_its_images_are_squashed_and_only_scaled() -> None:
    preprocess = convnet3().preprocess
    assert (preprocess.size, preprocess.resize, preprocess.crop) == (150, "squash", 1.0)
    assert preprocess.interpolation == "bilinear"
    assert (preprocess.mean, preprocess.std) == ((0, 0, 0), (1, 1, 1))
