"""The contract of a freeze policy."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch

from tlkit.errors import TlkitError, close_matches
from tlkit.model.classifier import Classifier
from tlkit.testing.runner import CLASSES, CheckFailed, PartUnderTest
from tlkit.testing.toy_backbones import FORMS, toy_backbone
from tlkit.testing.train_step import changed_names, full_state
from tlkit.utils.formatting import shortlist


@dataclass
class Subject:
    """What the checks of a freeze policy are called with.

    Attributes:
        part: the policy and its options.
        classifiers: the networks that the policy is called with.
    """

    part: PartUnderTest
    classifiers: tuple[Classifier, ...]


def setup(part: PartUnderTest) -> Subject:
    """Makes the classifiers, and calls the policy once.

    Raises:
        TlkitError: the policy refuses a network of three blocks.
    """
    classifiers = []
    for form in FORMS:
        backbone = toy_backbone(form)
        head = part.registry.make("head", "linear", {}, backbone, CLASSES)
        classifiers.append(Classifier(backbone, head))
    try:
        part.build(classifiers[0])
    except TlkitError as error:
        blocks = ", ".join(block.name for block in classifiers[0].blocks())
        raise TlkitError(
            f"freeze-policy {part.name!r} refuses a network with the blocks {blocks}: {error}"
        ) from error
    return Subject(part, tuple(classifiers))


def returns_a_set_of_names(subject: Subject) -> str:
    """The policy returns a set of strings."""
    names: object = subject.part.build(subject.classifiers[0])
    if not isinstance(names, set | frozenset):
        got = type(names).__name__
    elif wrong := [name for name in names if not isinstance(name, str)]:
        got = f"a set that contains {type(wrong[0]).__name__}"
    else:
        total = len(list(subject.classifiers[0].named_parameters()))
        return f"{len(names)} of {total} parameters are trainable"
    raise CheckFailed(
        expected="a set of parameter names",
        got=got,
        fix="return {name for name, parameter in classifier.named_parameters() if …}",
    )


def every_name_is_a_parameter(subject: Subject) -> None:
    """Each name is the name of one of the classifier's parameters."""
    for classifier in subject.classifiers:
        known = [name for name, _ in classifier.named_parameters()]
        unknown = sorted(set(subject.part.build(classifier)) - set(known))
        if unknown:
            raise CheckFailed(
                expected="names of the classifier's parameters, which begin with backbone. or head.",
                got=f"{shortlist(unknown)}{close_matches(unknown[0], known)}",
                fix="use the names in classifier.named_parameters(), or those of a block in "
                "classifier.blocks()",
            )


def the_network_is_not_modified(subject: Subject) -> None:
    """The policy changes no parameter, no buffer, no layer's mode and no requires_grad."""
    classifier = copy.deepcopy(subject.classifiers[0]).requires_grad_(True)
    flags = {name: value.requires_grad for name, value in classifier.named_parameters()}
    modes = [module.training for module in classifier.modules()]
    before = full_state(classifier)
    subject.part.build(classifier)
    changed = changed_names(before, full_state(classifier))
    changed += [
        f"{name}.requires_grad"
        for name, value in classifier.named_parameters()
        if value.requires_grad != flags[name]
    ]
    if modes != [module.training for module in classifier.modules()]:
        changed.append("the mode of some layers")
    if changed:
        raise CheckFailed(
            expected="the network to stay unchanged",
            got=f"changes of {shortlist(changed)}",
            fix="only return names: tlkit freezes the parameters that are not among them",
        )


def repeated_calls_agree(subject: Subject) -> None:
    """A second call returns the same names."""
    for classifier in subject.classifiers:
        first = set(subject.part.build(classifier))
        torch.manual_seed(1)
        different = sorted(first ^ set(subject.part.build(classifier)))
        if different:
            raise CheckFailed(
                expected="the same names on a second call",
                got=f"a different result for {shortlist(different)}",
                fix="let the result depend on the network and the options only",
            )


CHECKS = (
    returns_a_set_of_names,
    every_name_is_a_parameter,
    the_network_is_not_modified,
    repeated_calls_agree,
)
