"""The networks behind the built-in heads; apart from them so that torch is loaded only when one is made."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn


class Mlp(nn.Module):
    """Pooling, an optional hidden layer, dropout, one linear layer to the logits."""

    def __init__(
        self,
        shape: Sequence[int],
        classes: int,
        *,
        hidden: int | None,
        dropout: float,
        pool: Literal["flatten", "average"],
    ) -> None:
        """Makes the layers for features of one image's `shape`: ``(C, h, w)``, ``(N, C)`` or ``(C,)``."""
        super().__init__()
        self.positions: tuple[int, ...] = ()
        width = 1
        for length in shape:
            width *= length
        if pool == "average" and len(shape) > 1:
            # maps have their channels first, tokens last
            self.positions = (2, 3) if len(shape) == 3 else (1,)
            width = shape[0] if len(shape) == 3 else shape[1]
        self.hidden = nn.Sequential(nn.Linear(width, hidden), nn.ReLU()) if hidden else nn.Identity()
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(hidden or width, classes)

    def forward(self, features: Tensor) -> Tensor:
        """Features ``(B, C, h, w)``, ``(B, N, C)`` or ``(B, C)`` to logits ``(B, classes)``."""
        pooled = features.mean(self.positions) if self.positions else features.flatten(1)
        logits: Tensor = self.fc(self.dropout(self.hidden(pooled)))
        return logits


class ClassGroups(nn.Module):
    """A pretrained classifier, held as buffers so that nothing learns, and the groups of its classes."""

    weight: Tensor
    bias: Tensor

    def __init__(self, classifier: nn.Linear, groups: Sequence[Sequence[int]]) -> None:
        super().__init__()
        bias = classifier.bias if classifier.bias is not None else torch.zeros(classifier.out_features)
        self.register_buffer("weight", classifier.weight.detach().clone())
        self.register_buffer("bias", bias.detach().clone())
        self.groups = [list(group) for group in groups]

    def forward(self, features: Tensor) -> Tensor:
        """Pooled features ``(B, C)`` to logits ``(B, groups)``."""
        logits = nn.functional.linear(features, self.weight, self.bias).float()
        return torch.stack([logits[:, group].logsumexp(1) for group in self.groups], 1)
