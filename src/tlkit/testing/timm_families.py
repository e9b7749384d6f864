"""One network of every family of timm's through the parts of the contract that every run needs."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from tlkit.errors import PluginError, close_matches
from tlkit.plugins.registry import Registry
from tlkit.testing import backbones
from tlkit.testing.backbones import Subject
from tlkit.testing.runner import CheckFailed, PartUnderTest
from tlkit.testing.train_step import fine_tune_step, partition_problem


@dataclass
class Row:
    """What came of one network.

    Attributes:
        family: timm's module.
        name: the family's smallest member.
        size: pixels of the images it was shown.
        forward: whether its features are repeatable numbers of the declared shape.
        blocks: how many it has; 0 when they do not cover every parameter once.
        split: whether it divides in front of its last block, with the whole network's logits.
        finetune: whether its last block and head train, and nothing else moves.
        model_folder: whether a model folder brings it back.
        reason: why something is not so, or nothing.
    """

    family: str
    name: str
    size: int = 0
    forward: bool = False
    blocks: int = 0
    split: bool = False
    finetune: bool = False
    model_folder: bool = False
    reason: str = ""

    @property
    def works(self) -> bool:
        """Whether all is well; one that trains whole is well, too."""
        return self.forward and self.blocks > 0 and self.finetune and self.model_folder


def families(wanted: Sequence[str] = ()) -> list[str]:
    """The families of the installed timm: its modules; all unless some are named.

    Raises:
        PluginError: there is no such family.
    """
    import timm

    known: list[str] = timm.list_modules()
    for name in wanted:
        if name not in known:
            raise PluginError(f"timm has no family {name!r}{close_matches(name, known)}")
    return list(wanted) or known


def survey(wanted: Sequence[str], registry: Registry) -> Iterator[Row]:
    """Goes through the families, one network each, without pretrained weights."""
    for family in wanted:
        with warnings.catch_warnings():
            # what timm's own code says about itself is no matter here
            warnings.simplefilter("ignore")
            try:
                name = smallest(family)
            except Exception as error:
                yield Row(family, "", reason=_line(error))
            else:
                yield look_at(family, name, registry)


def smallest(family: str) -> str:
    """The family's member with the fewest parameters; ties go to the first by name.

    Networks are made without memory for their weights, so that the largest are made at once.
    """
    import timm
    import torch

    counts: dict[str, int] = {}
    for name in timm.list_models(module=family):
        with torch.device("meta"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = timm.create_model(name, pretrained=False)
        counts[name] = sum(value.numel() for value in model.parameters())
    return min(counts, key=lambda name: (counts[name], name))


def look_at(family: str, name: str, registry: Registry) -> Row:
    """One network's row."""
    row, reasons = Row(family, name), list[str]()
    try:
        bench = PartUnderTest.of("backbone", name, {"weights": "none"}, registry)
        subject = backbones.setup(bench, _smallest_size(name))
    except Exception as error:
        row.reason = _line(error)
        return row
    row.size = subject.size

    def attempt(step: Callable[[Subject], object]) -> bool:
        try:
            step(subject)
        except Exception as error:
            reasons.append(_line(error))
            return False
        return True

    row.forward = attempt(_forward)
    if attempt(backbones.blocks_cover_every_parameter_once):
        row.blocks = len(subject.backbone.blocks())
    classifier = subject.classifier()

    def split(subject: Subject) -> None:
        reason = partition_problem(classifier, 1, subject.images(2))
        if reason is not None:
            raise NotSplit(f"trains whole: {reason}")

    row.split = attempt(split)
    row.finetune = attempt(lambda subject: fine_tune_step(classifier, subject.images(2)))
    row.model_folder = attempt(backbones.a_model_folder_brings_it_back)
    row.reason = "; ".join(dict.fromkeys(reasons))
    return row


class NotSplit(Exception):
    """A network that keeps no features; its text is the reason."""


def _forward(subject: Subject) -> None:
    backbones.features_repeat(subject)
    backbones.shape_is(subject, subject.backbone.feature_shape, subject.size, 2)


def _smallest_size(name: str) -> dict[str, int]:
    """The smallest images that timm says the network takes, where it says so."""
    import timm

    config = timm.models.get_pretrained_cfg(name)
    size = config.min_input_size if config is not None and not config.fixed_input_size else None
    return {"size": size[-1]} if size else {}


def _line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if isinstance(error, (CheckFailed, NotSplit)) else f"{type(error).__name__}: {text}"
