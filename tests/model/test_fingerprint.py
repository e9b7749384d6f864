"""The store cannot mistake one network for another."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from networks import REGISTRY, classifier, divided, tiny
from torch import nn

from tlkit.model.classifier import Classifier


def network(pool: nn.Module | None = None, stride: int = 1, eps: float = 1e-5) -> nn.Sequential:
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
    made = Classifier(base, REGISTRY.make("head", head, {}, base, ["a", "b"]))
    split, _ = divided(made, "backbone", size=32)
    (boundary,) = split.boundaries
    return boundary.fingerprint


def changed(module: nn.Sequential) -> nn.Sequential:
    with torch.no_grad():
        module[0].weight[0, 0, 0, 0] += 1e-3
    return module


@pytest.mark.parametrize(
    "other",
    [
        lambda: network(pool=nn.AvgPool2d(2)),
        lambda: network(pool=nn.MaxPool2d(2, ceil_mode=True)),
        lambda: network(stride=2),
        lambda: network(eps=1e-3),
        lambda: changed(network()),
    ],
    ids=["pooling", "pooling mode", "stride", "eps", "one weight"],
)
def test_networks_that_differ_have_different_keys(other: Callable[[], nn.Module]) -> None:
    assert fingerprint(other()) != fingerprint(network())


def test_the_same_network_built_twice_has_the_same_key() -> None:
    assert fingerprint(network()) == fingerprint(network())
    assert fingerprint(network()) == fingerprint(copy.deepcopy(network()))


def test_output_stride_of_a_real_network() -> None:
    """The two have the same parameters; only strides and dilations differ."""

    def made(stride: int) -> str:
        torch.manual_seed(0)
        options = {"weights": "none", "features": "map", "model_args": {"output_stride": stride}}
        base = REGISTRY.make("backbone", "resnet50", options)
        split, _ = divided(Classifier(base, nn.Identity()), "backbone", size=64)
        return split.boundaries[0].fingerprint

    assert made(16) == made(16) != made(32)


def test_heads_and_seeds_share_keys() -> None:
    keys = {fingerprint(network(), head, seed) for head in ("linear", "mlp") for seed in (0, 1)}
    assert len(keys) == 1


def test_training_mode_and_memory_layout_make_no_difference() -> None:
    made = classifier("residual")
    split, _ = divided(made, "backbone")
    before = split.boundaries[0].fingerprint
    split.train()
    made.to(memory_format=torch.channels_last)
    split.refresh()
    assert split.boundaries[0].fingerprint == before
