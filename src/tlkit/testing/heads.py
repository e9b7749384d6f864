"""The contract of a head."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tlkit.errors import TlkitError
from tlkit.parts.backbone import Backbone
from tlkit.parts.head import SelfFittingHead
from tlkit.testing.runner import (
    CLASSES,
    EXACT_TOLERANCE,
    ROUNDING_TOLERANCE,
    CheckFailed,
    NotApplicable,
    PartUnderTest,
    relative_difference,
)
from tlkit.testing.toy_backbones import FORMS, FeatureForm, toy_backbone
from tlkit.utils.formatting import shortlist

#: The factor by which features are larger where bounded outputs are looked for.
SCALE = 100
#: Images per class that a head is fitted to.
PER_CLASS = 20


@dataclass
class Subject:
    """What the checks of a head are called with.

    Attributes:
        part: the head's factory and options.
        heads: by form of features, the backbone and the head that was made for it.
        refused: the forms of features that the factory refuses.
    """

    part: PartUnderTest
    heads: dict[FeatureForm, tuple[Backbone, nn.Module]]
    refused: list[FeatureForm]

    def features(self, form: FeatureForm, count: int) -> Tensor:
        """Returns noise in the shape of `count` images' features."""
        shape = self.heads[form][0].feature_shape
        return torch.randn(count, *shape, generator=torch.Generator().manual_seed(1))


def setup(part: PartUnderTest) -> Subject:
    """Makes a head for pooled features, one for maps and one for tokens.

    Raises:
        TlkitError: the factory refuses all of them.
        TypeError: it does not return a module.
    """
    heads: dict[FeatureForm, tuple[Backbone, nn.Module]] = {}
    refusals: dict[FeatureForm, str] = {}
    for form in FORMS:
        backbone = toy_backbone(form)
        try:
            with torch.random.fork_rng():
                torch.manual_seed(0)
                head = part.build(backbone, CLASSES)
        except TlkitError as error:
            refusals[form] = str(error)
            continue
        if not isinstance(head, nn.Module):
            raise TypeError(f"the factory must return a torch.nn.Module; it returned {type(head).__name__}")
        heads[form] = (backbone, head)
    if not heads:
        raise TlkitError(f"head {part.name!r} accepts no form of features: {refusals['pooled']}")
    return Subject(part, heads, list(refusals))


def logits_have_one_column_per_class(subject: Subject) -> str:
    """Features in any accepted form, of 1, 2 or 5 images, become finite logits ``(B, classes)``."""
    for form, (backbone, head) in subject.heads.items():
        head.eval()
        for count in (1, 2, 5):
            with torch.no_grad():
                logits = head(subject.features(form, count))
            if tuple(logits.shape) != (count, len(CLASSES)) or not logits.isfinite().all():
                shape = (count, *backbone.feature_shape)
                raise CheckFailed(
                    expected=f"finite logits of shape {(count, len(CLASSES))} from features of shape {shape}",
                    got=f"{tuple(logits.shape)}",
                    fix="end with nn.Linear(…, len(classes)) and no softmax; raise tlkit.PluginError in the "
                    "factory if it does not support backbone.feature_shape",
                )
    refused = f"; refuses {', '.join(subject.refused)}" if subject.refused else ""
    return f"takes {', '.join(subject.heads)}{refused}"


def logits_are_no_probabilities(subject: Subject) -> None:
    """Logits are not limited to 0–1: the loss, and tlkit's probabilities, apply a softmax to them."""
    for form, (_, head) in subject.heads.items():
        head.eval()
        with torch.no_grad():
            logits = head(SCALE * subject.features(form, 5))
        constant = bool((logits == logits[:1, :1]).all())  # weights may start at zero
        if not constant and logits.min() >= 0 and logits.max() <= 1:
            raise CheckFailed(
                expected=f"logits without limits from {SCALE} times the usual features",
                got=f"values from {logits.min():.3g} to {logits.max():.3g} only, as of probabilities, with "
                f"{form} features",
                fix="remove the softmax or sigmoid at the end: it would be applied twice",
            )


def images_are_independent(subject: Subject) -> None:
    """In evaluation mode, an image's logits do not depend on its batch, and a second call repeats them."""
    for form, (_, head) in subject.heads.items():
        head.eval()
        features = subject.features(form, 3)
        with torch.no_grad():
            batch, repeated = head(features), head(features)
            single = torch.cat([head(image[None]) for image in features])
        difference = max(relative_difference(single, batch), relative_difference(repeated, batch))
        if difference > ROUNDING_TOLERANCE:
            raise CheckFailed(
                expected="the same logits for an image alone, in a batch, and on a second call",
                got=f"a difference of {difference:.1e} of the largest logit, with {form} features",
                fix="use no dropout and no batch statistics in evaluation mode",
            )


def gradients_reach_every_parameter(subject: Subject) -> None:
    """The loss has a gradient other than zero for every parameter that requires one."""
    total = 0
    for form, (_, head) in subject.heads.items():
        trained = copy.deepcopy(head).train()
        with torch.no_grad():
            for value in trained.parameters():  # weights that start at zero would stop the gradient
                value.add_(0.05 * torch.randn_like(value))
        labels = torch.arange(6) % len(CLASSES)
        trainable = {name: value for name, value in trained.named_parameters() if value.requires_grad}
        total += len(trainable)
        if not trainable:
            continue
        loss = nn.functional.cross_entropy(trained(subject.features(form, 6)), labels)
        loss.backward()  # type: ignore[no-untyped-call]
        without = [name for name, value in trainable.items() if value.grad is None or not value.grad.any()]
        if without:
            raise CheckFailed(
                expected=f"gradients for all {len(trainable)} parameters, with {form} features",
                got=f"none for {shortlist(without)}",
                fix="use it in forward, without detach(), or make it a buffer with register_buffer()",
            )
    if not total:
        raise NotApplicable("it has no trainable parameters")


def its_state_can_be_loaded(subject: Subject) -> None:
    """A new head that loads the first one's state computes the same logits, as model folders require."""
    for form, (_, head) in subject.heads.items():
        _check_state(subject, form, head)


def fits_itself(subject: Subject) -> str:
    """A head that fits itself predicts separable training images, and forgets those of an earlier fit."""
    remarks = set()
    for form, head in _self_fitting(subject).items():
        labels = torch.arange(len(CLASSES)).repeat(PER_CLASS)
        features = _separable(subject, form, labels)
        remarks.add(_fit(head, features, labels))
        logits = _logits(head, features)
        correct = int((logits.argmax(1) == labels).sum())
        if correct < len(labels) or not logits.isfinite().all():
            raise CheckFailed(
                expected=f"the labels of the {len(labels)} images, well separated, that it is fitted to",
                got=f"{correct} of them, with {form} features",
                fix="let fit_features set the parameters and buffers that forward uses",
            )
        again = _self_fitting(subject)[form]
        _fit(again, features.flip(0), labels)  # each fold is fitted by the head of the fold before
        torch.manual_seed(1)
        _fit(again, features, labels)
        difference = relative_difference(_logits(again, features), logits)
        if difference > EXACT_TOLERANCE:
            raise CheckFailed(
                expected="the same logits from a head that is fitted to the same features again",
                got=f"a difference of {difference:.1e} of the largest logit, with {form} features",
                fix="let fit_features draw from a generator of its own, and start anew in every call",
            )
    return ", ".join(sorted(filter(None, remarks)))


def fits_rare_classes(subject: Subject) -> None:
    """A head that fits itself has finite logits where a class has one training image."""
    for form, head in _self_fitting(subject).items():
        labels = torch.tensor([0, 1] * PER_CLASS + [2])
        features = _separable(subject, form, labels)
        _fit(head, features, labels)
        logits = _logits(head, features)
        if not logits.isfinite().all():
            raise CheckFailed(
                expected="finite logits after a fit in which a class has one image",
                got=f"{int((~logits.isfinite()).sum())} that are infinite or NaN, with {form} features",
                fix="divide by no number that one image makes zero, such as a class's variance",
            )


def its_fitted_state_can_be_loaded(subject: Subject) -> None:
    """A new head that loads the state of one that fitted itself computes the same logits."""
    for form, head in _self_fitting(subject).items():
        labels = torch.arange(len(CLASSES)).repeat(PER_CLASS)
        _fit(head, _separable(subject, form, labels), labels)
        _check_state(subject, form, head)


def fits_several_labels(subject: Subject) -> None:
    """A head that fits itself, and is meant for several labels per image, tells the images of each class."""
    if "multilabel" not in subject.part.tasks:
        raise NotApplicable("it is not meant for several labels per image")
    for form, head in _self_fitting(subject).items():
        numbers = torch.arange(8).repeat(PER_CLASS // 4)
        labels = numbers[:, None] >> torch.arange(len(CLASSES)) & 1  # every combination
        directions = subject.features(form, len(CLASSES) + 1)[1:]
        features = torch.tensordot(labels.float(), directions, 1) + 0.1 * subject.features(form, len(labels))
        _fit(head, features, labels)
        wrong = int(((_logits(head, features) > 0) != (labels == 1)).sum())
        if wrong:
            raise CheckFailed(
                expected=f"logits above 0 for the classes of each of {len(labels)} images, and for no others",
                got=f"{wrong} of {labels.numel()} on the other side, with {form} features",
                fix="fit each class's logit to its column of the labels, ``(N, classes)``",
            )


def works_under_autocast(subject: Subject) -> None:
    """Logits are finite under autocast with bfloat16."""
    for form, (_, head) in subject.heads.items():
        with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
            logits = head.eval()(subject.features(form, 2))
        if not logits.isfinite().all():
            raise CheckFailed(
                expected=f"finite logits under torch.autocast with bfloat16, with {form} features",
                got=f"{int((~logits.isfinite()).sum())} that are infinite or NaN",
                fix="compute sensitive operations in float32: x.float()",
            )


def _check_state(subject: Subject, form: FeatureForm, head: nn.Module) -> None:
    """Loads a head's state into a new one, and compares their logits."""
    head.eval()
    torch.manual_seed(1)  # random values that are not part of the state will differ
    new = subject.part.build(subject.heads[form][0], CLASSES).eval()
    features = subject.features(form, 2)
    try:
        new.load_state_dict(head.state_dict())
    except RuntimeError as error:
        raise CheckFailed(
            expected="the same parameters and buffers in a second head with the same options",
            got=" ".join(str(error).split()),
            fix="let the head's layers depend on the options, the backbone and the classes only; let buffers "
            "that depend on the training images take over the loaded size in _load_from_state_dict",
        ) from error
    difference = relative_difference(_logits(new, features), _logits(head, features))
    if difference > EXACT_TOLERANCE:
        raise CheckFailed(
            expected="the same logits from a second head with the same state",
            got=f"a difference of {difference:.1e} of the largest logit, with {form} features",
            fix="make everything random or trained a parameter or buffer, so that it is saved",
        )


def _self_fitting(subject: Subject) -> dict[FeatureForm, nn.Module]:
    """Returns copies of the heads, which can fit themselves."""
    heads: dict[FeatureForm, nn.Module] = {
        form: copy.deepcopy(head).eval()
        for form, (_, head) in subject.heads.items()
        if isinstance(head, SelfFittingHead)
    }
    if not heads:
        raise NotApplicable("it does not fit itself: it has no method fit_features")
    return heads


def _fit(head: nn.Module, features: Tensor, labels: Tensor) -> str | None:
    """Lets a head fit itself, and returns what it chose."""
    assert isinstance(head, SelfFittingHead)
    chosen: object = head.fit_features(features, labels, torch.ones(len(labels)))
    if not isinstance(chosen, str | None):
        raise CheckFailed(
            expected="a str or None from fit_features: what it chose, for the results",
            got=type(chosen).__name__,
            fix="set parameters and buffers in fit_features, and return a text or nothing",
        )
    return chosen


def _logits(head: nn.Module, features: Tensor) -> Tensor:
    with torch.no_grad():
        logits: Tensor = head(features)
    return logits


def _separable(subject: Subject, form: FeatureForm, labels: Tensor) -> Tensor:
    """Returns features of images whose classes are well separated."""
    centres = subject.features(form, len(CLASSES) + 1)[1:]
    return centres[labels] + 0.1 * subject.features(form, len(labels))


CHECKS = (
    logits_have_one_column_per_class,
    logits_are_no_probabilities,
    images_are_independent,
    gradients_reach_every_parameter,
    its_state_can_be_loaded,
    fits_itself,
    fits_rare_classes,
    its_fitted_state_can_be_loaded,
    fits_several_labels,
    works_under_autocast,
)
