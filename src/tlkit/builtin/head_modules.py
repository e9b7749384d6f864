"""The networks of the built-in heads, in a separate module so that torch is imported only when needed."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any, Literal

import torch
from torch import Tensor, nn

Pool = Literal["flatten", "average"]


class Average(nn.Module):
    """Averages features over their positions.

    Attributes:
        width: number of features afterwards.
    """

    def __init__(self, shape: Sequence[int]) -> None:
        """Takes the shape of one image's features: ``(C, h, w)``, ``(N, C)`` or ``(C,)``."""
        super().__init__()
        # maps have their channels first, tokens last
        self.positions = ((), (1,), (2, 3))[len(shape) - 1]
        self.width = shape[1] if len(shape) == 2 else shape[0]

    def forward(self, features: Tensor) -> Tensor:
        """Maps features ``(B, C, h, w)``, ``(B, N, C)`` or ``(B, C)`` to ``(B, width)``."""
        return features.mean(self.positions) if self.positions else features


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
        self.pool = Average(shape) if pool == "average" else nn.Flatten()
        width = self.pool.width if isinstance(self.pool, Average) else prod(shape)
        self.hidden = nn.Sequential(nn.Linear(width, hidden), nn.ReLU()) if hidden else nn.Identity()
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(hidden or width, classes)

    def forward(self, features: Tensor) -> Tensor:
        """Maps features ``(B, C, h, w)``, ``(B, N, C)`` or ``(B, C)`` to logits ``(B, classes)``."""
        logits: Tensor = self.fc(self.dropout(self.hidden(self.pool(features))))
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


class Prototypes(nn.Module):
    """Cosine similarity to the mean features of each class (Snell et al., "Prototypical networks", 2017).

    Its weights are parameters: gradient steps can go on from the means ("imprinting", Qi et al. 2018).
    """

    #: Logits of a cosine of 1; the temperature is fitted afterwards.
    SCALE = 20.0

    def __init__(self, shape: Sequence[int], classes: int) -> None:
        """Makes unfitted prototypes for features of `shape`, without the batch."""
        super().__init__()
        self.pool = Average(shape)
        self.weight = nn.Parameter(torch.randn(classes, self.pool.width) / self.pool.width**0.5)

    def forward(self, features: Tensor) -> Tensor:
        """Maps features ``(B, C, h, w)``, ``(B, N, C)`` or ``(B, C)`` to logits ``(B, classes)``."""
        normalised = nn.functional.normalize(self.pool(features), dim=1)
        return self.SCALE * nn.functional.linear(normalised, nn.functional.normalize(self.weight, dim=1))

    @torch.no_grad()
    def fit_features(self, features: Tensor, labels: Tensor, weights: Tensor) -> None:
        """Takes the classes' mean features, of length 1; arguments as for `tlkit.SelfFittingHead`."""
        normalised = nn.functional.normalize(self.pool(features.float()), dim=1)
        of_class = nn.functional.one_hot(labels, len(self.weight)).float() * weights[:, None]
        self.weight.copy_(nn.functional.normalize(of_class.T @ normalised, dim=1))


class Neighbours(nn.Module):
    """The nearest training images' classes, weighted by similarity (Wu et al., 2018).

    Its state is the features of all training images; it has no parameters to train by gradient steps.
    """

    support: Tensor
    targets: Tensor

    def __init__(self, shape: Sequence[int], classes: int, *, neighbours: int, temperature: float) -> None:
        """Makes a head without training images for features of `shape`, without the batch."""
        super().__init__()
        self.pool = Average(shape)
        self.neighbours = neighbours
        self.temperature = temperature
        self.register_buffer("support", torch.zeros(0, self.pool.width))
        self.register_buffer("targets", torch.zeros(0, classes))

    def forward(self, features: Tensor) -> Tensor:
        """Maps features ``(B, C, h, w)``, ``(B, N, C)`` or ``(B, C)`` to log votes ``(B, classes)``."""
        similarities = nn.functional.normalize(self.pool(features), dim=1) @ self.support.T
        nearest = similarities.topk(min(self.neighbours, self.support.shape[0]), dim=1)
        votes = ((nearest.values - 1) / self.temperature).exp()[:, :, None] * self.targets[nearest.indices]
        # a class without a vote keeps a finite logit
        return (votes.sum(1) + 1e-6).log()

    @torch.no_grad()
    def fit_features(self, features: Tensor, labels: Tensor, weights: Tensor) -> None:
        """Takes the images' features, of length 1; arguments as for `tlkit.SelfFittingHead`."""
        self.support = nn.functional.normalize(self.pool(features.float()), dim=1)
        self.targets = nn.functional.one_hot(labels, self.targets.shape[1]).float() * weights[:, None]

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        support = state_dict.get(f"{prefix}support")
        if support is not None and support.ndim:  # loading reports all other shapes
            self.support = self.support.new_zeros(len(support), self.support.shape[1])
            self.targets = self.targets.new_zeros(len(support), self.targets.shape[1])
        super()._load_from_state_dict(state_dict, prefix, *args)
