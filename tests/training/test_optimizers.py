"""Optimisers and schedules by timm's names."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from networks import REGISTRY, classifier, partitioned, tiny
from torch import nn

from tlkit.model.classifier import Classifier
from tlkit.recipe.schema import PartSpec
from tlkit.training.optimizers import (
    SCHEDULES,
    make_optimizer,
    make_schedule,
    optimizer_problems,
    schedule_problems,
)


def test_options_may_choose_another_of_torchs_implementations() -> None:
    options = {"lr": 0.1, "foreach": True}
    assert not optimizer_problems("sgd", options)
    optimizer = make_optimizer(nn.Linear(2, 2), PartSpec(name="sgd", options=options))
    (group,) = optimizer.param_groups
    assert group["foreach"]
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
    assert make_schedule(optimizer, None, epochs=5, steps=3) is None
    assert optimizer.param_groups[0]["lr"] == 0.1


@pytest.mark.parametrize(
    ("name", "options", "key", "message"),
    [
        ("adamw", {"layer_decay": 0.0}, "layer_decay", "must be above 0 and at most 1, and is 0"),
        ("adamw", {"layer_decay": 1.5}, "layer_decay", "must be above 0 and at most 1, and is 1.5"),
        ("adamw", {"layer_decay": "0.7"}, "layer_decay", "must be a number, not '0.7'"),
        ("adamw", {"layer_decay_min_scale": 0.1}, "layer_decay_min_scale", "no effect without layer_decay"),
        (
            "adamw",
            {"layer_decay": 0.5, "layer_decay_min_scale": 2},
            "layer_decay_min_scale",
            "must be 0 to 1, and is 2",
        ),
        ("adamw", {"layer_decay_no_opt_scale": 0.1}, "layer_decay_no_opt_scale", "has no effect here"),
        ("adamw", {"param_group_fn": "f"}, "param_group_fn", "has no effect here"),
        ("muon", {"fallback_list": ["head"]}, "fallback_list", "has no effect here"),
        ("muon", {"fallback_no_weight_decay": True}, "fallback_no_weight_decay", "has no effect here"),
        ("adamw", {"momentum": 0.9}, "momentum", "has no effect on adamw"),
        ("sgd", {"eps": 1e-8}, "eps", "has no effect on sgd"),
        ("sgd", {"betas": [0.9, 0.99]}, "betas", "has no effect on sgd"),
        ("sgd", {"lr": math.inf}, "lr", "must be finite, and is inf"),
        ("sgd", {"weight_decay": math.nan}, "weight_decay", "must be finite, and is nan"),
        ("adamw", {"betas": [0.9, math.nan]}, "betas", "must be finite"),
        ("adamw", {"lr": 10**400}, "name", "timm's adamw cannot make a step with these options"),
        ("sgd", {"differentiable": True}, "name", "timm's sgd cannot make a step with these options"),
        ("adahessian", {}, "name", "needs second derivatives, which tlkit does not compute: choose another"),
    ],
)
def test_options_that_have_no_effect_or_cannot_be_used_are_refused(
    name: str, options: dict[str, Any], key: str, message: str
) -> None:
    ((named_key, text),) = optimizer_problems(name, {"lr": 0.1, **options})
    assert named_key == key
    assert message in text


def test_options_that_have_an_effect_are_accepted(caplog: pytest.LogCaptureFixture) -> None:
    assert not optimizer_problems("adamw", {"lr": 0.1, "layer_decay": 0.7, "layer_decay_min_scale": 0.01})
    assert not caplog.records  # timm warns of a network with one layer
    assert not optimizer_problems("adamw", {"lr": 0.1, "betas": [0.8, 0.9], "eps": 1e-6, "weight_decay": 0.1})
    assert not optimizer_problems("sgd", {"momentum": 0.5, "filter_bias_and_bn": False, "nesterov": False})


@pytest.mark.parametrize(
    ("name", "options", "key", "message"),
    [
        ("cosine", {"warmup_epochs": 5}, "warmup_epochs", "less than the phase's epochs (5), and is 5"),
        ("step", {"warmup_epochs": 50}, "warmup_epochs", "less than the phase's epochs (5), and is 50"),
        ("cosine", {"min_lr": math.inf}, "min_lr", "must be finite"),
        ("multistep", {"decay_milestones": [1, math.nan]}, "decay_milestones", "must be finite"),
        ("cosine", {"cooldown_epochs": 2}, "cooldown_epochs", "has no effect on cosine"),
        ("cosine", {"decay_rate": 0.5}, "decay_rate", "has no effect on cosine"),
        ("step", {"step_on_epochs": False}, "step_on_epochs", "has no effect on step"),
        ("cosine", {"warmup_epoch": 5}, "warmup_epoch", "is unknown (did you mean 'warmup_epochs'"),
        ("cosine", {"cycle_limit": 3}, "cycle_limit", "has no effect on cosine"),
        ("cosine", {"k_decay": -1.0}, "name", "timm's cosine refuses this: "),  # in its first epoch alone
    ],
)
def test_schedules_that_cannot_be_followed_are_refused(
    name: str, options: dict[str, Any], key: str, message: str
) -> None:
    ((named_key, text),) = schedule_problems(name, options, epochs=5)
    assert named_key == key
    assert message in text


def test_the_last_epoch_may_be_the_first_after_warm_up() -> None:
    assert not schedule_problems("cosine", {"warmup_epochs": 4}, epochs=5)
    assert not schedule_problems("cosine", {"warmup_epochs": 4}, epochs=0)  # a phase that does not train


@pytest.mark.parametrize("name", SCHEDULES)
def test_the_options_of_a_schedule_are_those_that_change_its_rates(name: str) -> None:
    others = {
        "min_lr": 0.01,
        "cycle_mul": 1.5,
        "cycle_decay": 0.7,
        "cycle_limit": 2,
        "k_decay": 1.5,
        "decay_rate": 0.3,
        "decay_epochs": 3,
        "decay_milestones": [2, 4],
        "cooldown_epochs": 2,
        "patience_epochs": 1,
        "stable_timescale": 2.0,
        "decay_fn": "linear",
        "plateau_mode": "min",
        "warmup_epochs": 2,
        "noise": 0.1,
    }
    base = {"decay_epochs": 4} if name == "step" else {}
    base |= {"decay_milestones": [3, 6]} if name == "multistep" else {}

    def rates(options: dict[str, Any]) -> list[float]:
        optimizer = make_optimizer(nn.Linear(2, 2), PartSpec(name="sgd", options={"lr": 0.1}))
        schedule = make_schedule(optimizer, PartSpec(name=name, options=options), 8, steps=1)
        assert schedule is not None
        values = []
        for step in range(8):
            schedule.step_update(step)
            values.append(optimizer.param_groups[0]["lr"])
        return values

    changing = {key for key, value in others.items() if rates({**base, key: value}) != rates(base)}
    assert changing == {*SCHEDULES[name], "warmup_epochs", "noise"}


#: Networks and their options. timm has the last norm or convolution of most in one layer with the head.
LAYERED = {
    "test_convnext": {},
    "test_vit": {},
    "resnet18": {},
    "mobilenetv3_small_050": {},
    "swin_tiny_patch4_window7_224": {"features": "map"},  # wrapped, since its channels are last
}


def rates(optimizer: torch.optim.Optimizer) -> dict[int, float]:
    """Returns the learning rate of each parameter, by its identity."""
    return {id(value): group["lr"] for group in optimizer.param_groups for value in group["params"]}


@pytest.mark.parametrize(("name", "scheduled"), [("resnet18", True), *((name, False) for name in LAYERED)])
def test_the_rates_of_layers_are_those_that_timm_gives_its_own_network(name: str, scheduled: bool) -> None:
    import timm
    from timm.optim import create_optimizer_v2
    from timm.scheduler import create_scheduler_v2

    options = {"lr": 0.1, "layer_decay": 0.7, "weight_decay": 0.05}
    model = timm.create_model(name, num_classes=3)
    theirs = create_optimizer_v2(model, opt="adamw", **options)
    # timm leaves the scale to its schedules; this one is constant
    create_scheduler_v2(theirs, sched="step", decay_rate=1.0)[0].step(0)
    expected = rates(theirs)

    base = REGISTRY.make("backbone", name, {"weights": "none", **LAYERED[name]})
    network = partitioned(
        Classifier(base, REGISTRY.make("head", "linear", {}, base, ["a", "b", "c"])),
        "nothing",
        size=base.preprocess.size,
    )[0]
    part = PartSpec(name="adamw", options=options)
    assert not optimizer_problems(part.name, part.options)
    ours = make_optimizer(network, part)
    step = PartSpec(name="step", options={"decay_rate": 1.0}) if scheduled else None
    if schedule := make_schedule(ours, step, epochs=2, steps=2):
        schedule.step_update(3)
    rate_of = rates(ours)
    own = {
        name.removeprefix("classifier.backbone.").removeprefix("net."): value
        for name, value in network.named_parameters()
    }
    compared = 0
    for name, value in model.named_parameters():
        if name in own:
            assert rate_of[id(own[name])] == pytest.approx(expected[id(value)]), name
            compared += 1
    last = model.get_classifier()
    for value in network.classifier.head.parameters():
        assert rate_of[id(value)] == pytest.approx(expected[id(last.weight)]) == pytest.approx(0.1)
    assert compared >= len(own) - 2
    assert len(set(rate_of.values())) > 4


def test_layers_are_blocks_where_a_backbone_says_nothing_else() -> None:
    blocks = nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3)
    base = tiny(nn.Sequential(*blocks), size=8)
    network = Classifier(base, REGISTRY.make("head", "linear", {}, base, ["a", "b"]))
    options = {"lr": 1.0, "layer_decay": 0.5, "layer_decay_min_scale": 0.3}
    optimizer = make_optimizer(
        partitioned(network, "nothing", size=8)[0], PartSpec(name="sgd", options=options)
    )
    make_schedule(optimizer, None, epochs=1, steps=1)
    first, _, second = network.backbone
    rate_of = rates(optimizer)
    assert [rate_of[id(layer.weight)] for layer in (first, second)] == [0.3, 0.5]
    assert {rate_of[id(value)] for value in network.head.parameters()} == {1.0}


def test_frozen_layers_count_but_are_not_optimised() -> None:
    """The rate of the last block is the same, whatever is trainable in front of it."""

    def rate(policy: str, **options: int) -> float:
        network, _ = partitioned(classifier("residual"), policy, **options)
        part = PartSpec(name="sgd", options={"lr": 1.0, "layer_decay": 0.5})
        optimizer = make_optimizer(network, part)
        make_schedule(optimizer, None, epochs=1, steps=1)
        rate_of = rates(optimizer)
        assert set(rate_of) == {id(value) for value in network.parameters() if value.requires_grad}
        return rate_of[id(network.classifier.backbone.layer4[1].conv1.weight)]

    assert rate("nothing") == rate("all-but-last-blocks", blocks=1) == 0.5


@pytest.mark.parametrize("name", ["adafactor", "cadafactor"])
def test_an_optimiser_without_a_rate_of_its_own_needs_one(name: str) -> None:
    assert optimizer_problems(name, {}) == [("lr", f"is missing, and timm's {name} has no default")]
    assert not optimizer_problems(name, {"lr": 0.01})
