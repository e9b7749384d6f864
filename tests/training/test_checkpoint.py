"""Checkpoints: network, optimiser and history come back exactly, and an interrupted write does no harm."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tlkit.errors import RunFolderError
from tlkit.training.checkpoint import Checkpoint, load_checkpoint, remove_checkpoint, save_checkpoint
from tlkit.training.history import EpochMetrics, History, ValidationScores
from tlkit.utils.atomic_write import replaced_path


def make_network(seed: int) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))


def full_state(network: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in network.state_dict().items()}


def load(folder: Path, network: nn.Module, optimizer: torch.optim.Optimizer) -> Checkpoint | None:
    return load_checkpoint(folder, network, optimizer, full_state(network))


def train_a_step(network: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    images = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    optimizer.zero_grad()
    network(images).square().mean().backward()
    optimizer.step()


HISTORY = History(
    epochs=[
        EpochMetrics(1, 0.5, 0.25, 0.75, 0.7, 1e-3, 1.5),
        EpochMetrics(2, 0.1 + 0.2, 0.3, 0.5, 0.4, 1e-4, 2.5),
    ],
    best_epoch=1,
    start=ValidationScores(loss=0.6, accuracy=0.5, balanced_accuracy=0.4),
    monitor="balanced_accuracy",
)
OPTIMIZERS = {
    "sgd": lambda network: torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9),
    "adamw": lambda network: torch.optim.AdamW(network.parameters(), lr=0.1, amsgrad=True),
}


@pytest.mark.parametrize("make_optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_everything_comes_back(
    make_optimizer: Callable[[nn.Module], torch.optim.Optimizer], tmp_path: Path
) -> None:
    network = make_network(1)
    optimizer = make_optimizer(network)
    train_a_step(network, optimizer)
    best = full_state(network)
    train_a_step(network, optimizer)
    save_checkpoint(tmp_path / "resume", Checkpoint(best, HISTORY), network, optimizer)
    other = make_network(2)
    other_optimizer = make_optimizer(other)
    checkpoint = load(tmp_path / "resume", other, other_optimizer)
    assert checkpoint is not None
    assert checkpoint.history == HISTORY
    assert checkpoint.best.keys() == best.keys()
    assert all(torch.equal(checkpoint.best[name], value) for name, value in best.items())
    for step in range(2):  # as it was, and after one more step
        for name, value in network.state_dict().items():
            assert torch.equal(other.state_dict()[name], value), (step, name)
        train_a_step(network, optimizer)
        train_a_step(other, other_optimizer)


def test_an_optimisers_infinite_values_come_back(tmp_path: Path) -> None:
    """Prodigy's growth rate is one."""
    network = make_network(1)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    optimizer.param_groups[0]["growth_rate"] = math.inf
    save_checkpoint(tmp_path / "resume", Checkpoint(full_state(network), HISTORY), network, optimizer)
    optimizer.param_groups[0]["growth_rate"] = 1.0
    assert load(tmp_path / "resume", network, optimizer) is not None
    assert optimizer.param_groups[0]["growth_rate"] == math.inf


def test_only_what_training_changes_is_written(tmp_path: Path) -> None:
    network = make_network(1)
    optimizer = torch.optim.SGD(network[1].parameters(), lr=0.1)
    best = {name: value for name, value in full_state(network).items() if name.startswith("1.")}
    save_checkpoint(tmp_path / "resume", Checkpoint(best, HISTORY), network, optimizer)
    other = make_network(2)
    frozen = full_state(other[0])
    optimizer = torch.optim.SGD(other[1].parameters(), lr=0.1)
    assert load_checkpoint(tmp_path / "resume", other, optimizer, best)
    assert all(torch.equal(value, frozen[name]) for name, value in other[0].state_dict().items())
    assert torch.equal(other.state_dict()["1.weight"], network.state_dict()["1.weight"])


def test_without_a_checkpoint_nothing_is_loaded(tmp_path: Path) -> None:
    network = make_network(1)
    before = full_state(network)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    assert load(tmp_path / "resume", network, optimizer) is None
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_the_one_before_is_read_where_a_process_was_killed_while_it_was_replaced(tmp_path: Path) -> None:
    network = make_network(1)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    folder = tmp_path / "resume"
    save_checkpoint(folder, Checkpoint(full_state(network), HISTORY), network, optimizer)
    folder.rename(replaced_path(folder))
    checkpoint = load(folder, network, optimizer)
    assert checkpoint is not None
    assert checkpoint.history == HISTORY


def test_what_an_optimiser_keeps_in_its_groups_comes_back(tmp_path: Path) -> None:
    network = make_network(1)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    kept = {"step": 3, "sizes": ({1: None}, [2.5, True]), "dtype": torch.bfloat16, "mean": torch.ones(2)}
    optimizer.param_groups[0].update(kept)
    save_checkpoint(tmp_path / "resume", Checkpoint(full_state(network), HISTORY), network, optimizer)
    other = torch.optim.SGD(network.parameters(), lr=0.1)
    assert load(tmp_path / "resume", network, other)
    group = {key: other.param_groups[0][key] for key in kept}
    assert repr(group) == repr(kept)  # types too: True equals 1


def test_what_cannot_be_saved_is_not_saved(tmp_path: Path) -> None:
    network = make_network(1)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    optimizer.param_groups[0]["probability"] = lambda step: 0.5
    with pytest.raises(TypeError, match="a function cannot be saved"):
        save_checkpoint(tmp_path / "resume", Checkpoint(full_state(network), HISTORY), network, optimizer)
    assert not list(tmp_path.iterdir())


def make_larger() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5))


class OtherTypes(torch.optim.SGD):
    """Accepts no state."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if state_dict["state"]:
            super().load_state_dict(state_dict)  # halfway
            raise AttributeError("no state")
        super().load_state_dict(state_dict)


@pytest.mark.parametrize(
    ("make_other", "make_optimizer", "message"),
    [
        (make_larger, OPTIMIZERS["sgd"], "is a checkpoint of another network"),
        (lambda: make_network(2).half(), OPTIMIZERS["sgd"], "is a checkpoint of another network"),
        (lambda: make_network(2)[0], OPTIMIZERS["sgd"], "is a checkpoint of another network"),
        (lambda: make_network(2), OPTIMIZERS["adamw"], "is a checkpoint of another optimiser"),
        (
            lambda: make_network(2),
            lambda network: torch.optim.SGD([{"params": [value]} for value in network.parameters()], lr=0.1),
            "is a checkpoint of another optimiser",
        ),
        (
            lambda: make_network(2),
            lambda network: OtherTypes(network.parameters(), lr=0.3),
            "another optimiser: no state",
        ),
    ],
)
def test_of_a_checkpoint_of_something_else_nothing_is_loaded(
    make_other: Callable[[], nn.Module],
    make_optimizer: Callable[[nn.Module], torch.optim.Optimizer],
    message: str,
    tmp_path: Path,
) -> None:
    network = make_network(1)
    optimizer = OPTIMIZERS["sgd"](network)
    train_a_step(network, optimizer)
    save_checkpoint(tmp_path / "resume", Checkpoint(full_state(network), HISTORY), network, optimizer)
    other = make_other()
    before, other_optimizer = full_state(other), make_optimizer(other)
    groups = repr(other_optimizer.state_dict())
    with pytest.raises(RunFolderError, match=message):
        load(tmp_path / "resume", other, other_optimizer)
    assert all(torch.equal(value, before[name]) for name, value in other.state_dict().items())
    assert repr(other_optimizer.state_dict()) == groups


def test_removing_leaves_nothing(tmp_path: Path) -> None:
    network = make_network(1)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    folder = tmp_path / "resume"
    for _ in range(2):
        save_checkpoint(folder, Checkpoint(full_state(network), HISTORY), network, optimizer)
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("resume")] == ["resume"]
    # of processes that were killed while they wrote
    replaced_path(folder).mkdir()
    (tmp_path / "resume.0123abcd.unfinished").mkdir()
    (tmp_path / "resume.4567cdef.unfinished").touch()
    remove_checkpoint(folder)
    remove_checkpoint(folder)
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("resume")] == []
