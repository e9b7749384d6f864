"""The contract of a head."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tlkit.errors import TlkitError
from tlkit.parts.backbone import Backbone
from tlkit.testing.runner import (
    CLASSES,
    EXACT_TOLERANCE,
    ROUNDING_TOLERANCE,
    CheckFailed,
    NotApplicable,
    PartUnderTest,
    relative_difference,
    shortlist,
)
from tlkit.testing.toy_backbones import FORMS, toy_backbone


@dataclass
class Subject:
    """A head under test, on every form of features that it takes.

    Attributes:
        bench: how it was made.
        heads: by the form of the features, "pooled", "map" or "tokens": the backbone and its head.
        refused: by form, what it said to those it does not take.
    """

    bench: PartUnderTest
    heads: dict[str, tuple[Backbone, nn.Module]]
    refused: dict[str, str]

    def features(self, form: str, count: int) -> Tensor:
        """Noise of the form's shape, for `count` images."""
        shape = self.heads[form][0].feature_shape
        return torch.randn(count, *shape, generator=torch.Generator().manual_seed(1))


def setup(bench: PartUnderTest) -> Subject:
    """Makes the head for pooled features, maps and tokens.

    Raises:
        TlkitError: it refuses all of them.
    """
    heads, refused = {}, {}
    for form in FORMS:
        backbone = toy_backbone(form)
        try:
            with torch.random.fork_rng():
                torch.manual_seed(0)
                head = bench.part(backbone, CLASSES)
        except TlkitError as error:
            refused[form] = str(error)
            continue
        if not isinstance(head, nn.Module):
            raise TypeError(f"the factory must return a torch.nn.Module, not {type(head).__name__}")
        heads[form] = (backbone, head)
    if not heads:
        raise TlkitError(f"head {bench.name!r} takes no features at all: {refused['pooled']}")
    return Subject(bench, heads, refused)


def logits_have_one_column_per_class(subject: Subject) -> str:
    """Features of any form it takes, of 1, 2 or 5 images, become finite logits ``(B, classes)``."""
    for form, (backbone, head) in subject.heads.items():
        head.eval()
        for count in (1, 2, 5):
            with torch.no_grad():
                logits = head(subject.features(form, count))
            if tuple(logits.shape) != (count, len(CLASSES)) or not logits.isfinite().all():
                shape = (count, *backbone.feature_shape)
                raise CheckFailed(
                    expected=f"finite logits {(count, len(CLASSES))} from features {shape}",
                    came=f"{tuple(logits.shape)}",
                    mend="end in nn.Linear(…, len(classes)), without a softmax; raise tlkit's PluginError "
                    "in the factory for a backbone.feature_shape that it cannot take",
                )
    refused = f"; refuses {', '.join(subject.refused)}" if subject.refused else ""
    return f"takes {', '.join(subject.heads)}{refused}"


def images_are_independent(subject: Subject) -> None:
    """In evaluation mode an image's logits do not depend on the others in its batch, and repeat."""
    for form, (_, head) in subject.heads.items():
        head.eval()
        features = subject.features(form, 3)
        with torch.no_grad():
            together, again = head(features), head(features)
            alone = torch.cat([head(one[None]) for one in features])
        distance = max(relative_difference(alone, together), relative_difference(again, together))
        if distance > ROUNDING_TOLERANCE:
            raise CheckFailed(
                expected="an image's logits to be the same alone, beside others, and on a second call",
                came=f"a difference of {distance:.1e} of the largest, with {form} features",
                mend="in evaluation mode use no dropout and no statistics over the batch",
            )


def gradients_reach_every_parameter(subject: Subject) -> None:
    """A step back from the loss gives every parameter that may learn a gradient that is not zero."""
    learn = 0
    for form, (_, head) in subject.heads.items():
        trained = copy.deepcopy(head).train()
        with torch.no_grad():
            for value in trained.parameters():  # some rightly begin as zeros, which lets no gradient past
                value.add_(0.05 * torch.randn_like(value))
        labels = torch.arange(6) % len(CLASSES)
        own = {name: value for name, value in trained.named_parameters() if value.requires_grad}
        learn += len(own)
        if not own:
            continue
        loss: Any = nn.functional.cross_entropy(trained(subject.features(form, 6)), labels)
        loss.backward()
        without = [name for name, value in own.items() if value.grad is None or not value.grad.any()]
        if without:
            raise CheckFailed(
                expected=f"a gradient for each of {len(own)} parameters, with {form} features",
                came=f"none for {shortlist(without)}",
                mend="use it in forward, without detach(), or make it a buffer with register_buffer()",
            )
    if not learn:
        raise NotApplicable("nothing in it learns")


def its_state_can_be_loaded(subject: Subject) -> None:
    """A head made again takes the first one's weights and gives its logits: model folders need that."""
    for form, (backbone, head) in subject.heads.items():
        head.eval()
        torch.manual_seed(1)  # whatever it draws and does not save is then another
        again = subject.bench.part(backbone, CLASSES).eval()
        features = subject.features(form, 2)
        try:
            again.load_state_dict(head.state_dict())
        except RuntimeError as error:
            raise CheckFailed(
                expected="the same parameters from the same options",
                came=" ".join(str(error).split()),
                mend="let options, backbone and classes alone decide what the head is made of",
            ) from error
        with torch.no_grad():
            distance = relative_difference(again(features), head(features))
        if distance > EXACT_TOLERANCE:
            raise CheckFailed(
                expected="the same logits from a new head with the same weights",
                came=f"a difference of {distance:.1e} of the largest, with {form} features",
                mend="hold all that is drawn or learned as parameters or buffers, so that it is saved",
            )


def works_under_autocast(subject: Subject) -> None:
    """Under bfloat16 autocast it gives finite logits."""
    for form, (_, head) in subject.heads.items():
        with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
            logits = head.eval()(subject.features(form, 2))
        if not logits.isfinite().all():
            raise CheckFailed(
                expected=f"finite logits under torch.autocast with bfloat16, with {form} features",
                came=f"{int((~logits.isfinite()).sum())} that are not",
                mend="compute sensitive steps in float32: x.float()",
            )


CHECKS = (
    logits_have_one_column_per_class,
    images_are_independent,
    gradients_reach_every_parameter,
    its_state_can_be_loaded,
    works_under_autocast,
)
