"""An interruption is rehearsed with optimisers that keep something where it is not saved."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from tlkit.training import optimizers
from tlkit.training.optimizers import optimizer_problems
from tlkit.training.rehearsal import resumes_exactly


class Forgetful(torch.optim.SGD):
    """Makes smaller steps the more it made, and forgets how many."""

    steps = 0

    def step(self, closure: Any = None) -> None:
        self.steps += 1
        for group in self.param_groups:
            group["lr"] = 0.1 / self.steps
        super().step(closure)


class Diary(torch.optim.SGD):
    """Keeps what cannot be saved."""

    def step(self, closure: Any = None) -> None:
        super().step(closure)
        self.param_groups[0]["seen"] = {1}


class Random(torch.optim.SGD):
    """Draws from torch's generator, which every epoch seeds."""

    def step(self, closure: Any = None) -> None:
        self.param_groups[0]["lr"] = float(torch.rand(()))
        super().step(closure)


def test_only_what_is_saved_goes_on_with_the_same_numbers() -> None:
    assert resumes_exactly(lambda network: torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9))
    assert resumes_exactly(lambda network: Random(network.parameters(), lr=0.1))
    assert not resumes_exactly(lambda network: Forgetful(network.parameters(), lr=0.1))
    with pytest.raises(TypeError, match="a set cannot be saved"):
        resumes_exactly(lambda network: Diary(network.parameters(), lr=0.1))


def test_random_numbers_drawn_later_are_the_same() -> None:
    state = torch.get_rng_state()
    resumes_exactly(lambda network: Random(network.parameters(), lr=0.1))
    assert torch.equal(torch.get_rng_state(), state)


def test_weights_that_become_nan_are_no_reason_to_refuse() -> None:
    def make(network: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.SGD(network.parameters(), lr=1e38, momentum=0.9, weight_decay=10)

    assert resumes_exactly(make)


@pytest.mark.parametrize(
    ("cls", "message"),
    [
        (Forgetful, "sgd cannot be resumed exactly, if a run is interrupted: choose another"),
        (Diary, "timm's sgd cannot make a step with these options, or be saved: a set cannot be saved"),
    ],
)
def test_optimisers_that_cannot_be_resumed_are_refused(
    cls: type[torch.optim.Optimizer], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def make(module: nn.Module, part: object) -> torch.optim.Optimizer:
        return cls(module.parameters(), lr=0.1)

    monkeypatch.setattr(optimizers, "make_optimizer", make)
    optimizers._resume_problem.cache_clear()
    assert optimizer_problems("sgd", {}) == [("name", message)]
    optimizers._resume_problem.cache_clear()
