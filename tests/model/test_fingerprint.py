"""Fingerprints tell networks apart, so the store cannot mistake one network's features for another's."""

from __future__ import annotations

import copy
import functools
import pathlib
import random
from collections.abc import Callable

import numpy as np
import pytest
import torch
from networks import REGISTRY, classifier, partitioned, tiny
from timm.layers import register_notrace_module
from torch import nn

from tlkit.model.classifier import Classifier
from tlkit.model.fingerprint import fingerprint_module
from tlkit.model.tracing import NotPartitionable


def make_network(pool: nn.Module | None = None, stride: int = 1, eps: float = 1e-5) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=stride, padding=1),
        nn.BatchNorm2d(8, eps=eps),
        pool or nn.MaxPool2d(2),
        nn.ReLU(),
    )


def fingerprint(module: nn.Module, head: str = "linear", seed: int = 0) -> str:
    base = tiny(module)
    torch.manual_seed(seed)
    whole = Classifier(base, REGISTRY.make("head", head, {}, base, ["a", "b"]))
    network, _ = partitioned(whole, "backbone", size=32)
    (boundary,) = network.boundaries
    return boundary.fingerprint


def with_one_other_weight(module: nn.Sequential) -> nn.Sequential:
    with torch.no_grad():
        module[0].weight[0, 0, 0, 0] += 1e-3
    return module


@pytest.mark.parametrize(
    "other",
    [
        lambda: make_network(pool=nn.AvgPool2d(2)),
        lambda: make_network(pool=nn.MaxPool2d(2, ceil_mode=True)),
        lambda: make_network(stride=2),
        lambda: make_network(eps=1e-3),
        lambda: with_one_other_weight(make_network()),
    ],
    ids=["pooling", "pooling mode", "stride", "eps", "one weight"],
)
def test_networks_that_differ_have_different_fingerprints(other: Callable[[], nn.Module]) -> None:
    assert fingerprint(other()) != fingerprint(make_network())


def test_the_same_network_built_twice_has_the_same_fingerprint() -> None:
    assert fingerprint(make_network()) == fingerprint(make_network())
    assert fingerprint(make_network()) == fingerprint(copy.deepcopy(make_network()))


def test_output_stride_of_a_real_network_changes_the_fingerprint() -> None:
    """The two have the same parameters; only strides and dilations differ."""

    def of_stride(stride: int) -> str:
        torch.manual_seed(0)
        options = {"weights": "none", "features": "map", "model_args": {"output_stride": stride}}
        base = REGISTRY.make("backbone", "resnet50", options)
        network, _ = partitioned(Classifier(base, nn.Identity()), "backbone", size=64)
        return network.boundaries[0].fingerprint

    assert of_stride(16) == of_stride(16) != of_stride(32)


def test_heads_and_seeds_share_fingerprints() -> None:
    fingerprints = {fingerprint(make_network(), head, seed) for head in ("linear", "mlp") for seed in (0, 1)}
    assert len(fingerprints) == 1


def test_training_mode_and_memory_layout_make_no_difference() -> None:
    whole = classifier("residual")
    network, _ = partitioned(whole, "backbone")
    before = network.boundaries[0].fingerprint
    network.train()
    whole.to(memory_format=torch.channels_last)
    network.refresh()
    assert network.boundaries[0].fingerprint == before


class Scaled(nn.Module):
    """A layer whose behaviour depends on a value that is neither a parameter nor a number."""

    def __init__(self, act: object) -> None:
        super().__init__()
        self.act = act

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images


class Holder:
    """An object with a method, and whatever else it holds."""

    def __init__(self, factor: object) -> None:
        self.factor = factor

    def scale(self, value: float) -> float:
        return value


def closure(factor: float) -> Callable[[float], float]:
    return lambda value: factor * value


def default(factor: float) -> Callable[[float], float]:
    def scale(value: float, factor: float = factor) -> float:
        return factor * value

    return scale


def bound(factor: float) -> Callable[[float], float]:
    return Holder(factor).scale


@pytest.mark.parametrize(
    "make",
    [
        closure,
        default,
        bound,
        lambda factor: functools.partial(closure, factor),
        lambda factor: Holder([Holder(factor)]),
        lambda factor: {factor: 1},
        lambda factor: np.full(3, factor),
        lambda factor: pathlib.Path(str(factor)),
        lambda factor: random.Random(factor),
        lambda factor: np.random.default_rng(int(factor)),
    ],
    ids="closure default bound partial object key array path random generator".split(),
)
def test_what_a_layer_keeps_is_part_of_its_fingerprint(make: Callable[[float], object]) -> None:
    """`TransformerEncoderLayer(activation=f(1.0))` and `f(3.0)` once shared one."""
    one, same, other = (fingerprint_module(Scaled(make(factor))) for factor in (1.0, 1.0, 3.0))
    assert one == same != other


def test_the_activation_of_torchs_own_layer() -> None:
    def layer(factor: float) -> nn.Module:
        torch.manual_seed(0)
        return nn.TransformerEncoderLayer(8, 2, activation=closure(factor))  # type: ignore[arg-type]

    assert fingerprint_module(layer(1.0)) == fingerprint_module(layer(1.0)) != fingerprint_module(layer(3.0))


class Unpicklable:
    """Stands for an open file or a lock, which networks cannot be copied with either."""

    def __deepcopy__(self, memo: object) -> Unpicklable:
        return self

    def __reduce_ex__(self, protocol: object) -> str:
        raise TypeError("cannot be pickled")


def cyclic() -> object:
    holder = Holder(None)
    holder.factor = holder
    return holder


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (cyclic, "contains itself"),
        (lambda: Unpicklable(), "Unpicklable, which cannot be described"),
        (lambda: [].append, "append of an object"),
    ],
    ids=["cyclic", "unpicklable", "method"],
)
def test_what_cannot_be_described_is_not_cached(make: Callable[[], object], reason: str) -> None:
    """The network is then trained whole, and says why."""
    layers = nn.Sequential(nn.Conv2d(3, 8, 3), Opaque(make()), nn.Flatten())
    base = tiny(layers)
    network, _ = partitioned(
        Classifier(base, REGISTRY.make("head", "linear", {}, base, ["a", "b"])), "backbone", size=32
    )
    assert network.boundaries == ()
    assert network.fallback_reason is not None
    assert reason in network.fallback_reason


@register_notrace_module
class Opaque(Scaled):
    """A layer that tracing does not look into."""


def test_hooks_change_what_a_layer_computes() -> None:
    layer = nn.Conv2d(3, 8, 3)
    layer.register_forward_hook(lambda *_: None)
    with pytest.raises(NotPartitionable, match="forward hooks"):
        fingerprint_module(layer)
