"""Mixup and CutMix: each image of a batch is mixed with another one of it, and so are their labels.

As in timm's `Mixup`, all images of a batch are mixed in the same proportion, each with its opposite in the
batch. That one takes images alone; here what enters the suffix is mixed, which may be several tensors.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from tlkit.recipe.schema import TrainingSpec

#: Of logits and labels: a batch's loss.
MeanLoss = Callable[[Tensor, Tensor], Tensor]


class Mixer:
    """Mixes batches, as a phase's training says."""

    def __init__(self, training: TrainingSpec, generator: np.random.Generator) -> None:
        """Draws the proportions of an epoch from `generator`."""
        self._mixup, self._cutmix = training.mixup, training.cutmix
        self._generator = generator

    def mix(self, crossing: tuple[Tensor, ...], images: int) -> tuple[tuple[Tensor, ...], float]:
        """Mixes a batch.

        Args:
            crossing: the tensors that enter the suffix, ``(k·B, …)``; with CutMix, the images.
            images: the number of images, B.

        Returns:
            The mixed tensors, and how much of each image is its own.
        """
        if not self._mixup and not self._cutmix:
            return crossing, 1.0
        if self._cutmix and (not self._mixup or self._generator.random() < 0.5):
            (batch,) = crossing
            mixed, own = self._cut(batch)
            return (mixed,), own
        own = self._generator.beta(self._mixup, self._mixup)
        return tuple(torch.lerp(opposite(rows, images), rows, own) for rows in crossing), own

    def _cut(self, images: Tensor) -> tuple[Tensor, float]:
        """Puts a piece of the opposite image into each one: CutMix."""
        height, width = images.shape[-2:]
        side = np.sqrt(1 - self._generator.beta(self._cutmix, self._cutmix))
        top, bottom = self._interval(height, int(height * side))
        left, right = self._interval(width, int(width * side))
        mixed = images.clone()
        mixed[..., top:bottom, left:right] = images.flip(0)[..., top:bottom, left:right]
        return mixed, 1 - (bottom - top) * (right - left) / (height * width)

    def _interval(self, size: int, length: int) -> tuple[int, int]:
        """Draws where a piece begins and ends; it may be cut off at the border."""
        centre = int(self._generator.integers(size))
        return max(centre - length // 2, 0), min(centre + (length + 1) // 2, size)


def opposite(rows: Tensor, images: int) -> Tensor:
    """Returns the rows of the images in reverse order; those of one image stay together."""
    by_image: Tensor = rows.unflatten(0, (images, -1))  # type: ignore[no-untyped-call]
    return by_image.flip(0).flatten(0, 1)


def mixed_loss(loss: MeanLoss, logits: Tensor, labels: Tensor, own: float) -> Tensor:
    """Returns the loss of a batch that was mixed: that of its own labels and the others', in proportion."""
    result = loss(logits, labels)
    return result if own == 1 else torch.lerp(loss(logits, labels.flip(0)), result, own)
