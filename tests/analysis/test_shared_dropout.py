"""Dropout that copies of a network share: what it drops, how often, and that copies drop the same."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from tlkit.analysis.shared_dropout import SharedDropout


def copies(network: nn.Module, count: int = 3) -> list[nn.Module]:
    return [copy.deepcopy(network) for _ in range(count)]


@pytest.mark.parametrize("probability", [0.5, 0.3, 0.001, 0.9995])
def test_values_are_dropped_as_often_as_the_layer_says_and_the_mean_stays(probability: float) -> None:
    dropout, ones = SharedDropout(copies(nn.Sequential(nn.Dropout(probability)), 1)), torch.ones(1000, 2003)
    dropout.seed(3)
    (output,) = dropout.outputs(ones)
    dropped, count = int((output == 0).sum()), output.numel()
    # four standard deviations of a binomial distribution
    assert dropped == pytest.approx(
        count * probability, abs=4 * (count * probability * (1 - probability)) ** 0.5
    )
    assert (output[output != 0] == pytest.approx(1 / (1 - probability))) and (output != 0).any()


@pytest.mark.parametrize(("probability", "expected"), [(0.0, 1.0), (1.0, 0.0)])
def test_nothing_or_everything_is_dropped(probability: float, expected: float) -> None:
    dropout = SharedDropout(copies(nn.Sequential(nn.Dropout(probability))))
    assert (dropout.outputs(torch.ones(5, 7)) == expected).all()


def test_copies_drop_the_same_values_of_what_they_share_and_of_what_they_do_not() -> None:
    class Head(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.drop, self.hidden = nn.Dropout(0.5), nn.Sequential(nn.Linear(40, 60), nn.Dropout(0.5))

        def forward(self, features: Tensor) -> Tensor:
            # one layer may be called twice: it draws anew
            return torch.cat([self.drop(features), self.drop(features), self.hidden(features)], 1)

    heads = copies(Head())
    with torch.no_grad():
        for factor, head in enumerate(heads, 1):
            head.hidden[0].weight.mul_(factor)
    dropout = SharedDropout(heads)
    dropout.seed(1)
    first = dropout.outputs(torch.ones(20, 40))
    is_dropped = first == 0
    assert (is_dropped == is_dropped[0]).all()
    assert not (first[0, :, 80:] == first[1, :, 80:]).all()
    assert (is_dropped[0, :, :40] != is_dropped[0, :, 40:80]).any()
    assert (dropout.outputs(torch.ones(20, 40)) != first).any()
    dropout.seed(1)
    assert (dropout.outputs(torch.ones(20, 40)) == first).all()
    for head in heads:
        head.eval()
    assert (dropout.outputs(torch.ones(20, 40))[0, :, :40] == 1).all()


def test_gradients_are_those_of_the_values_that_were_kept() -> None:
    network = nn.Sequential(nn.Linear(6, 8, bias=False), nn.Dropout(0.5), nn.Linear(8, 1, bias=False))
    (copied,) = heads = copies(network, 1)
    dropout, inputs = SharedDropout(heads), torch.randn(1, 6)
    dropout.outputs(inputs).sum().backward()
    kept = copied[2].weight.grad != 0
    assert 0 < kept.sum() < 8
    assert ((copied[0].weight.grad != 0).any(1) == kept[0]).all()
