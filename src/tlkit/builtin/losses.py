"""The built-in losses."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from tlkit.errors import PluginError
from tlkit.parts.loss import Loss
from tlkit.plugins.hookspecs import hookimpl

if TYPE_CHECKING:
    from torch import Tensor

    from tlkit.plugins.registry import Register


@hookimpl
def tlkit_losses(register: Register) -> None:
    register("cross-entropy", cross_entropy)
    register("focal", focal)
    register("binary-cross-entropy", binary_cross_entropy, tasks=("multilabel",))


def cross_entropy(classes: Sequence[str], counts: Sequence[int], *, label_smoothing: float = 0.0) -> Loss:
    """Makes the cross-entropy of the softmax and the label.

    Args:
        label_smoothing: how much of the target is spread over all classes, 0 to 1.
    """
    from torch.nn import functional

    if not 0 <= label_smoothing < 1:
        raise PluginError(f"label_smoothing must be at least 0 and below 1, and is {label_smoothing}")
    return partial(functional.cross_entropy, reduction="none", label_smoothing=label_smoothing)


def focal(classes: Sequence[str], counts: Sequence[int], *, gamma: float = 2.0) -> Loss:
    """Makes the focal loss: cross-entropy times ``(1 - p) ** gamma``, p the label's probability (Lin 2017).

    Args:
        gamma: how strongly images that are predicted well are down-weighted; 0 is cross-entropy.
    """
    if gamma < 0:
        raise PluginError(f"gamma must be at least 0, and is {gamma}")
    return partial(_focal, gamma=gamma)


def binary_cross_entropy(classes: Sequence[str], counts: Sequence[int]) -> Loss:
    """Makes the mean over the classes of the cross-entropy of the sigmoid, for several labels per image."""
    return _binary_cross_entropy


def _binary_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    from torch.nn import functional

    losses = functional.binary_cross_entropy_with_logits(logits, labels.to(logits), reduction="none")
    return losses.mean(1)


def _focal(logits: Tensor, labels: Tensor, *, gamma: float) -> Tensor:
    from torch.nn import functional

    losses = functional.cross_entropy(logits, labels, reduction="none")
    # never exactly 0, where the gradient of a root is infinite
    missing = (-(-losses).expm1()).clamp(min=1e-6)
    return missing**gamma * losses
