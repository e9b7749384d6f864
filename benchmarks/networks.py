"""VGG16 with a small head, for the contenders that train a torch module."""

from __future__ import annotations

import timm
import torch
from torch import nn

from benchmarks.work import DROPOUT, HIDDEN, LAST_BLOCK, MAPS


def network() -> nn.Sequential:
    """Makes timm's VGG16 with a head of 256 units in place of its fully connected layers; untrained.

    It maps images ``(B, 3, 150, 150)`` to logits ``(B, 2)``; its last block and head are trainable.
    ImageNet's weights are not available on the machines where this is measured; they would not change the
    times.
    """
    torch.manual_seed(1)
    features = timm.create_model("vgg16", pretrained=False).features
    head = nn.Sequential(
        nn.Flatten(), nn.Linear(MAPS, HIDDEN), nn.ReLU(), nn.Dropout(DROPOUT), nn.Linear(HIDDEN, 2)
    )
    features[:LAST_BLOCK].requires_grad_(False)
    return nn.Sequential(features, head)
