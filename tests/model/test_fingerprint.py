"""Fingerprints tell networks apart, so the store cannot mistake one network's features for another's."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from networks import REGISTRY, classifier, partitioned, tiny
from torch import nn

from tlkit.model.classifier import Classifier


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
