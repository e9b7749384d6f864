"""Tries one network of every family of timm's: forward pass, blocks, partitioning, training, saving."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from torch.overrides import TorchFunctionMode

from tlkit.errors import PluginError, close_matches
from tlkit.model.partition import Partition
from tlkit.plugins.registry import Registry
from tlkit.testing import backbone_subject
from tlkit.testing.backbone_blocks import blocks_cover_every_parameter_once
from tlkit.testing.backbone_copies import a_model_folder_restores_it
from tlkit.testing.backbone_features import expect_shape, features_repeat
from tlkit.testing.backbone_subject import Subject
from tlkit.testing.runner import CheckFailed, PartUnderTest
from tlkit.testing.train_step import fine_tune_step, partition_at, partition_problem


@dataclass
class Row:
    """The results of one network.

    Attributes:
        family: the timm module that defines it.
        name: the network, the family's smallest.
        size: height and width of the images, in pixels.
        forward: whether its features repeat, are finite, and have the declared shape.
        blocks: the number of its blocks; 0 if they do not cover every parameter exactly once.
        partitions: whether it is partitioned in front of its last block, with the same logits.
        finetune: whether a training step of the last block and the head changes nothing else.
        model_folder: whether a model folder restores it.
        reason: why some of these fail, or empty.
    """

    family: str
    name: str
    size: int = 0
    forward: bool = False
    blocks: int = 0
    partitions: bool = False
    finetune: bool = False
    model_folder: bool = False
    reason: str = ""

    @property
    def works(self) -> bool:
        """Whether it can be used; a network that can only be trained whole counts."""
        return self.forward and self.blocks > 0 and self.finetune and self.model_folder


def families(names: Sequence[str] = ()) -> list[str]:
    """Returns the families of the installed timm, its modules: those with these names, or all.

    Raises:
        PluginError: there is no such family.
    """
    import timm

    modules: list[str] = timm.list_modules()
    for name in names:
        if name not in modules:
            raise PluginError(f"timm has no family {name!r}{close_matches(name, modules)}")
    return list(names) or modules


def survey(names: Sequence[str], registry: Registry) -> Iterator[Row]:
    """Yields the results of one network of each family, without pretrained weights."""
    for family in names:
        with warnings.catch_warnings():
            # timm's warnings about its own code do not matter here
            warnings.simplefilter("ignore")
            try:
                name = smallest(family)
            except Exception as error:
                yield Row(family, "", reason=_one_line(error))
            else:
                yield try_network(family, name, registry)


def smallest(family: str) -> str:
    """Returns the family's network with the fewest parameters; of several, the first by name.

    Networks are made on the meta device and not initialised, so that large ones take no time and memory.
    """
    import timm
    import torch

    counts: dict[str, int] = {}
    for name in timm.list_models(module=family):
        with torch.device("meta"), _Uninitialised(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = timm.create_model(name, pretrained=False)
        counts[name] = sum(value.numel() for value in model.parameters())
    return min(counts, key=lambda name: (counts[name], name))


class _Uninitialised(TorchFunctionMode):
    """Skips what initialises tensors: on the meta device they have no values, yet each step takes time."""

    STEPS = frozenset("uniform_ normal_ trunc_normal_ erfinv_ mul_ add_ clamp_ fill_ zero_".split())

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(func, "__name__", "") in self.STEPS and args and args[0].is_meta:
            return args[0]
        return func(*args, **(kwargs or {}))


def try_network(family: str, name: str, registry: Registry) -> Row:
    """Returns the results of one network."""
    row, reasons = Row(family, name), list[str]()
    try:
        part = PartUnderTest.of("backbone", name, {"weights": "none"}, registry)
        subject = backbone_subject.setup(part, size=_smallest_size(name))
    except Exception as error:
        row.reason = _one_line(error)
        return row
    row.size = subject.size

    def attempt(step: Callable[[Subject], object]) -> bool:
        try:
            step(subject)
        except Exception as error:
            reasons.append(_one_line(error))
            return False
        return True

    row.forward = attempt(_forward)
    if attempt(blocks_cover_every_parameter_once):
        row.blocks = len(subject.backbone.blocks())
    classifier = subject.classifier()

    @cache  # for both steps: nothing here takes longer
    def network() -> Partition:
        return partition_at(classifier, 1, subject.images(2))

    def partition(subject: Subject) -> None:
        reason = partition_problem(network(), 1, subject.images(2))
        if reason is not None:
            raise TrainsWhole(f"trains whole: {reason}")

    row.partitions = attempt(partition)
    row.finetune = attempt(lambda subject: fine_tune_step(network(), subject.images(2)))
    row.model_folder = attempt(a_model_folder_restores_it)
    row.reason = "; ".join(dict.fromkeys(reasons))
    return row


class TrainsWhole(Exception):
    """A network cannot be partitioned, so that no features can be cached; the text is the reason."""


def _forward(subject: Subject) -> None:
    features_repeat(subject)
    expect_shape(subject, subject.backbone.feature_shape, subject.size, 2)


def _smallest_size(name: str) -> int | None:
    """Returns the smallest image size that timm declares for the network, or None."""
    import timm

    config = timm.models.get_pretrained_cfg(name)
    size = config.min_input_size if config is not None and not config.fixed_input_size else None
    return size[-1] if size else None


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if isinstance(error, CheckFailed | TrainsWhole) else f"{type(error).__name__}: {text}"
