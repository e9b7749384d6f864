"""The contract of a loss."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tlkit.parts.loss import Loss
from tlkit.testing.runner import CLASSES, ROUNDING_TOLERANCE, CheckFailed, PartUnderTest, relative_difference

#: Images of each class: unequal numbers, and none of the last, as a fold may have.
COUNTS = (100, 7, 0)


@dataclass
class Subject:
    """What the checks of a loss are called with.

    Attributes:
        loss: the loss.
        several: whether it is meant for several labels per image.
    """

    loss: Loss
    several: bool

    def targets(self, labels: Tensor) -> Tensor:
        """Returns labels as the loss takes them; of several per image, each image's only one."""
        return nn.functional.one_hot(labels, len(CLASSES)) if self.several else labels


def setup(part: PartUnderTest) -> Subject:
    """Makes the loss.

    Raises:
        TypeError: it cannot be called.
    """
    loss = part.build(CLASSES, COUNTS)
    if not callable(loss):
        raise TypeError(f"the factory must return a function or a module; it returned {type(loss).__name__}")
    return Subject(loss, "multilabel" in part.tasks)


def there_is_one_loss_per_image(subject: Subject) -> None:
    """Logits ``(B, classes)`` and labels, of 1, 2 or 5 images, become finite losses ``(B,)``.

    Labels are ``(B,)``, or, for several per image, ``(B, classes)``.
    """
    for count in (1, 2, 5):
        logits, labels = _batch(count)
        losses = subject.loss(logits, subject.targets(labels))
        if not isinstance(losses, Tensor) or losses.shape != (count,) or not losses.isfinite().all():
            shown = tuple(losses.shape) if isinstance(losses, Tensor) else type(losses).__name__
            raise CheckFailed(
                expected=f"finite losses of shape {(count,)} from logits of shape {(count, len(CLASSES))}",
                got=f"{shown}",
                fix='return each image\'s loss, as reduction="none" does: tlkit weighs and averages them',
            )


def images_are_independent(subject: Subject) -> None:
    """An image's loss does not depend on its batch, and a second call repeats it."""
    logits, labels = _batch(5)
    labels = subject.targets(labels)
    batch, repeated = subject.loss(logits, labels), subject.loss(logits, labels)
    single = torch.cat([subject.loss(logits[[index]], labels[[index]]) for index in range(5)])
    difference = max(relative_difference(single, batch), relative_difference(repeated, batch))
    if difference > ROUNDING_TOLERANCE:
        raise CheckFailed(
            expected="the same loss for an image alone, in a batch, and on a second call",
            got=f"a difference of {difference:.1e} of the largest loss",
            fix="compute it from the image's own logits and label, without statistics of the batch",
        )


def better_predictions_cost_less(subject: Subject) -> None:
    """The more probable the label of an image is, the lower is its loss."""
    labels = torch.arange(len(CLASSES))
    right = nn.functional.one_hot(labels, len(CLASSES)).float()
    losses = torch.stack([subject.loss(scale * right, subject.targets(labels)) for scale in (-1.0, 0.0, 1.0)])
    if not (losses.diff(dim=0) < 0).all():
        raise CheckFailed(
            expected="a lower loss the more probable the label is, for every class",
            got=f"{[round(float(value), 4) for value in losses.mean(1)]} for improbable to probable labels",
            fix="check its sign, and that labels index the columns of the logits",
        )


def gradients_are_finite(subject: Subject) -> None:
    """The logits have finite gradients, also where the network is certain, and right or wrong."""
    for scale in (1.0, 60.0):
        logits, labels = _batch(5)
        wrong = (labels + 1) % len(CLASSES)
        certain = nn.functional.one_hot(torch.cat([labels[:2], wrong[2:]]), len(CLASSES)) * scale
        logits = (logits + certain).requires_grad_()
        subject.loss(logits, subject.targets(labels)).mean().backward()  # type: ignore[no-untyped-call]
        if logits.grad is None or not logits.grad.isfinite().all() or not logits.grad.any():
            gradient = "none" if logits.grad is None else f"{logits.grad.flatten().tolist()[:4]} …"
            raise CheckFailed(
                expected=f"finite gradients, not all 0, where a logit is {scale:g} larger than the others",
                got=gradient,
                fix="use log_softmax() instead of log(softmax()), and no root of what can be 0",
            )


def it_has_no_trainable_parameters(subject: Subject) -> None:
    """A module has no parameters: nothing would train or save them."""
    if isinstance(subject.loss, nn.Module) and (names := [n for n, _ in subject.loss.named_parameters()]):
        raise CheckFailed(
            expected="a loss without trainable parameters",
            got=", ".join(names),
            fix="register constants with register_buffer(); what is trained belongs into a head",
        )


def _batch(count: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(count)
    return torch.randn(count, len(CLASSES), generator=generator), torch.arange(count) % len(CLASSES)


CHECKS = (
    there_is_one_loss_per_image,
    images_are_independent,
    better_predictions_cost_less,
    gradients_are_finite,
    it_has_no_trainable_parameters,
)
