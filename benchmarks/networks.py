"""VGG16 with a small head, for the contenders that train a torch module."""

from __future__ import annotations

import timm
import torch
from torch import nn

from benchmarks.work import DROPOUT, HIDDEN, LAST_BLOCK, MAPS


def network() -> nn.Sequential:
    """timm's VGG16 without its fully connected layers, then 256 units; untrained, the last block learns.

    Images ``(B, 3, 150, 150)`` to logits ``(B, 2)``. ImageNet's weights cannot be had on the machines where
    this is measured; they would change no time.
    """
    torch.manual_seed(1)
    features = timm.create_model("vgg16", pretrained=False).features
    head = nn.Sequential(
        nn.Flatten(), nn.Linear(MAPS, HIDDEN), nn.ReLU(), nn.Dropout(DROPOUT), nn.Linear(HIDDEN, 2)
    )
    features[:LAST_BLOCK].requires_grad_(False)
    return nn.Sequential(features, head)
