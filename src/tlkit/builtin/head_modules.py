"""The networks of the built-in heads, in a separate module so that torch is imported only when needed."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Literal

import torch
from torch import Tensor, nn

Pool = Literal["flatten", "average"]


class Mlp(nn.Module):
    """Pooling, an optional hidden layer, dropout, and a linear layer to the logits."""

    def __init__(
        self, shape: Sequence[int], classes: int, *, hidden: int | None, dropout: float, pool: Pool
    ) -> None:
        """Makes the layers for features of `shape`, without the batch: ``(C, h, w)``, ``(N, C)`` or ``(C,)``.

        Args:
            shape: the shape of one image's features.
            classes: number of logits.
            hidden: units of the hidden layer; None: without one.
            dropout: probability that an input of the last layer is dropped in training.
            pool: "flatten" keeps every position of the features, "average" averages over them.
        """
        super().__init__()
        self.positions: tuple[int, ...] = ()
        width = prod(shape)
        if pool == "average" and len(shape) > 1:
            # maps have their channels first, tokens last
            self.positions = (2, 3) if len(shape) == 3 else (1,)
            width = shape[0] if len(shape) == 3 else shape[1]
        self.hidden = nn.Sequential(nn.Linear(width, hidden), nn.ReLU()) if hidden else nn.Identity()
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(hidden or width, classes)

    def forward(self, features: Tensor) -> Tensor:
        """Maps features ``(B, C, h, w)``, ``(B, N, C)`` or ``(B, C)`` to logits ``(B, classes)``."""
        pooled = features.mean(self.positions) if self.positions else features.flatten(1)
        logits: Tensor = self.fc(self.dropout(self.hidden(pooled)))
        return logits


class ClassGroups(nn.Module):
    """A pretrained classifier whose classes are grouped; its weights are buffers, so nothing is trainable."""

    weight: Tensor
    bias: Tensor

    def __init__(self, classifier: nn.Linear, groups: Sequence[Sequence[int]]) -> None:
        """Copies the classifier's weights; each group is a sequence of indices of its classes."""
        super().__init__()
        bias = classifier.bias if classifier.bias is not None else torch.zeros(classifier.out_features)
        self.register_buffer("weight", classifier.weight.detach().clone())
        self.register_buffer("bias", bias.detach().clone())
        self.groups = [list(group) for group in groups]

    def forward(self, features: Tensor) -> Tensor:
        """Maps pooled features ``(B, C)`` to logits ``(B, groups)``."""
        logits = nn.functional.linear(features, self.weight, self.bias).float()
        return torch.stack([logits[:, group].logsumexp(1) for group in self.groups], 1)
