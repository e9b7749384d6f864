"""What a head is that fits itself, instead of being trained by gradient steps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from torch import Tensor


@runtime_checkable
class SelfFittingHead(Protocol):
    """A head, an ``nn.Module``, that fits itself to the features of the training images.

    It does where the whole backbone is frozen. A phase that trains a part of the backbone, too, trains the
    head's parameters by gradient steps, as those of any other head.

    Buffers whose size depends on the training images must take over the size of a state that is loaded, by
    overriding ``nn.Module._load_from_state_dict``.
    """

    def fit_features(self, features: Tensor, labels: Tensor, weights: Tensor) -> str | None:
        """Fits the head.

        What is random must be drawn from a generator that is made in this call, not from a global one.

        Args:
            features: of the training images, float32 ``(N, C, h, w)``, ``(N, N', C)`` or ``(N, C)``.
            labels: the images' classes, int64 ``(N,)``; of a head that is registered for several labels per
                image, where those are the task, 0 or 1 for each class, ``(N, classes)``.
            weights: each image's weight, float32 ``(N,)``.

        Returns:
            What it chose, for the results, or None.
        """


@runtime_checkable
class HasLinearForm(Protocol):
    """A head that fits itself in a form that gradient steps cannot train, and has a linear one too."""

    def use_linear_form(self) -> bool:
        """Changes to the linear form; returns whether that changes its logits."""
