"""What a loss is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from torch import Tensor


class Loss(Protocol):
    """What a loss's factory returns: a function, or an ``nn.Module`` without trainable parameters.

    A module is moved to the device that is trained on.
    """

    def __call__(self, logits: Tensor, labels: Tensor, /) -> Tensor:
        """Computes each image's loss.

        Classes' weights are applied afterwards, where the recipe asks for them.

        Args:
            logits: float32 ``(B, classes)``.
            labels: int64 ``(B,)``; with several labels per image, 0 or 1 for each class, ``(B, classes)``.

        Returns:
            Losses ``(B,)``.
        """
