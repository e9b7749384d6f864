"""The contract of a freeze policy."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch

from tlkit.errors import TlkitError, close_matches
from tlkit.model.classifier import Classifier
from tlkit.testing.runner import CLASSES, CheckFailed, PartUnderTest, shortlist
from tlkit.testing.toy_backbones import FORMS, toy_backbone
from tlkit.testing.train_step import changed_names, full_state


@dataclass
class Subject:
    """A freeze policy under test.

    Attributes:
        bench: how it was made.
        classifiers: the networks that it is asked about.
    """

    bench: PartUnderTest
    classifiers: tuple[Classifier, ...]


def setup(bench: PartUnderTest) -> Subject:
    """Makes the classifiers, and asks the policy once.

    Raises:
        TlkitError: it refuses a network of three blocks.
    """
    classifiers = []
    for form in FORMS:
        backbone = toy_backbone(form)
        head = bench.registry.make("head", "linear", {}, backbone, CLASSES)
        classifiers.append(Classifier(backbone, head))
    try:
        bench.part(classifiers[0])
    except TlkitError as error:
        blocks = ", ".join(block.name for block in classifiers[0].blocks())
        raise TlkitError(
            f"freeze-policy {bench.name!r} refuses a network with the blocks {blocks}: {error}"
        ) from error
    return Subject(bench, tuple(classifiers))


def it_returns_a_set_of_names(subject: Subject) -> str:
    """Its answer is a set of strings."""
    learning = subject.bench.part(subject.classifiers[0])
    if not isinstance(learning, (set, frozenset)) or not all(isinstance(name, str) for name in learning):
        raise CheckFailed(
            expected="a set of parameter names",
            came=type(learning).__name__
            if not isinstance(learning, (set, frozenset))
            else f"a set that holds {type(next(iter(learning))).__name__}",
            mend="return {name for name, parameter in classifier.named_parameters() if …}",
        )
    return f"{len(learning)} of {len(dict(subject.classifiers[0].named_parameters()))} learn"


def every_name_is_a_parameter(subject: Subject) -> None:
    """Each name is one of the classifier's parameters."""
    for classifier in subject.classifiers:
        known = [name for name, _ in classifier.named_parameters()]
        unknown = sorted(set(subject.bench.part(classifier)) - set(known))
        if unknown:
            raise CheckFailed(
                expected="names of the classifier's parameters, which begin with backbone. or head.",
                came=f"{shortlist(unknown)}{close_matches(unknown[0], known)}",
                mend="take names from classifier.named_parameters() or from a block of classifier.blocks()",
            )


def the_network_stays(subject: Subject) -> None:
    """The policy only answers: no parameter, buffer, mode or requires_grad is changed by it."""
    classifier = copy.deepcopy(subject.classifiers[0]).requires_grad_(True)
    flags = {name: value.requires_grad for name, value in classifier.named_parameters()}
    modes = [module.training for module in classifier.modules()]
    before = full_state(classifier)
    subject.bench.part(classifier)
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
            expected="the policy to leave the network alone",
            came=f"a change of {shortlist(changed)}",
            mend="return names only: tlkit freezes what is not among them",
        )


def it_answers_alike(subject: Subject) -> None:
    """Asked again it gives the same names."""
    for classifier in subject.classifiers:
        first = set(subject.bench.part(classifier))
        torch.manual_seed(1)
        different = sorted(first ^ set(subject.bench.part(classifier)))
        if different:
            raise CheckFailed(
                expected="the same names when it is asked again",
                came=f"a different answer about {shortlist(different)}",
                mend="let the network and the options alone decide",
            )


CHECKS = (it_returns_a_set_of_names, every_name_is_a_parameter, the_network_stays, it_answers_alike)
