"""Optimisers and schedules by timm's names."""

from __future__ import annotations

import pytest
from torch import nn

from tlkit.recipe.schema import PartSpec
from tlkit.training.optimizers import make_optimizer, make_schedule, optimizer_problems


@pytest.mark.parametrize("implementation", ["foreach", "differentiable"])
def test_options_may_choose_another_of_torchs_implementations(implementation: str) -> None:
    options = {"lr": 0.1, implementation: True}
    assert not optimizer_problems("sgd", options)
    optimizer = make_optimizer(nn.Linear(2, 2), PartSpec(name="sgd", options=options))
    (group,) = optimizer.param_groups
    assert group[implementation]
    assert not group["fused"]
    default = make_optimizer(nn.Linear(2, 2), PartSpec(name="sgd", options={"lr": 0.1}))
    assert default.param_groups[0]["fused"]


def test_only_trainable_parameters_are_optimised() -> None:
    module = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    module[0].requires_grad_(False)
    optimizer = make_optimizer(module, PartSpec(name="adamw", options={"lr": 0.1}))
    optimised = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    assert {id(parameter) for parameter in optimised} == {id(value) for value in module[1].parameters()}


def test_without_a_schedule_the_learning_rate_is_constant() -> None:
    optimizer = make_optimizer(nn.Linear(2, 2), PartSpec(name="sgd", options={"lr": 0.1}))
    assert make_schedule(optimizer, None, epochs=5) is None
