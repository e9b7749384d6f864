from __future__ import annotations

import pytest
import timm
import torch
from torch import Tensor, nn

from tlkit.parts.initial_values import if_not_loaded, without_initial_values


@pytest.mark.parametrize("name", ["resnet10t", "vit_tiny_patch16_224", "convnext_atto"])
def test_a_network_whose_weights_are_loaded_draws_no_random_numbers(name: str) -> None:
    weights = timm.create_model(name).state_dict()

    def make() -> nn.Module:
        with if_not_loaded():
            network: nn.Module = timm.create_model(name)
        network.load_state_dict(weights)
        return network

    before = torch.get_rng_state()
    network = without_initial_values(make, lambda network: network)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(weights[key], value) for key, value in network.state_dict().items())


def linear() -> nn.Sequential:
    torch.manual_seed(1)
    with if_not_loaded():
        return nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))


def test_weights_that_are_not_loaded_have_initial_values() -> None:
    loaded = {"weight": torch.ones(4, 3), "bias": torch.ones(4)}

    def make() -> nn.Module:
        network = linear()
        network[0].load_state_dict(loaded)
        return network

    network = without_initial_values(make, lambda network: network)
    assert all(torch.equal(*pair) for pair in zip(network.parameters(), make().parameters(), strict=True))
    assert not any(value.isnan().any() for value in linear().parameters())


def test_what_a_plugin_computes_with_initial_values_is_computed() -> None:
    def make() -> nn.Module:
        network = nn.Linear(3, 4)  # not within if_not_loaded
        assert not network.weight.isnan().any()
        return network

    before = torch.get_rng_state()
    without_initial_values(make, lambda network: network)
    assert not torch.equal(torch.get_rng_state(), before)


def test_what_has_a_generator_of_its_own_is_drawn() -> None:
    class Projection(nn.Module):
        matrix: Tensor

        def __init__(self) -> None:
            super().__init__()
            with if_not_loaded():
                self.matrix = torch.empty(3, 3).normal_(generator=torch.Generator().manual_seed(1))

    assert torch.equal(without_initial_values(Projection, lambda made: made).matrix, Projection().matrix)
