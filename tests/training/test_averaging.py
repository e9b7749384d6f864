"""The average of the weights: against a loop by hand, in training, and after an interruption."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from networks import classifier, partitioned
from small_training import COMPUTE, make_inputs, make_network, make_training
from torch import Tensor, nn

from tlkit.errors import RunFolderError
from tlkit.recipe.schema import PartSpec
from tlkit.training import loop
from tlkit.training.averaging import WeightAverage
from tlkit.training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from tlkit.training.loop import predict, train, trained_state


def train_a_step(network: nn.Module, step: int) -> None:
    network.train()
    network.zero_grad()
    network(torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(step))).square().mean().backward()
    with torch.no_grad():
        for value in network.parameters():
            if value.grad is not None:
                value -= value.grad


def clones(network: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in network.state_dict().items()}


def test_the_average_is_that_of_a_loop_by_hand_and_of_timm() -> None:
    from timm.utils import ModelEmaV3

    network = make_network()
    average, timms = WeightAverage(network, 0.7), ModelEmaV3(copy.deepcopy(network), 0.7, use_warmup=True)
    by_hand = clones(network)
    decays = []
    for step in range(1, 11):
        train_a_step(network, step)
        average.update(step)
        timms.update(network, step=step)
        decays.append(min(0.7, 1 - step ** (-2 / 3)))
        for name, value in network.state_dict().items():
            if value.is_floating_point():
                by_hand[name] = decays[-1] * by_hand[name] + (1 - decays[-1]) * value
    assert decays[0] == 0 < decays[1] < decays[5] < decays[-1] == 0.7
    state = average.state()
    assert state.keys() == by_hand.keys() - {"classifier.backbone.1.num_batches_tracked"}
    for name, value in state.items():
        assert torch.allclose(value, by_hand[name], atol=1e-6), name
        assert torch.allclose(value, timms.module.state_dict()[name], atol=1e-6), name
        assert not torch.equal(value, network.state_dict()[name]), name


def test_the_average_is_in_the_network_while_it_is_applied() -> None:
    network = make_network()
    average = WeightAverage(network, 0.9)
    for step in range(1, 4):
        train_a_step(network, step)
        average.update(step)
    weights, images = clones(network), torch.randn(2, 3, 8, 8)
    network.eval()
    logits = network(images)
    with pytest.raises(ZeroDivisionError), average.applied():
        assert not torch.equal(network(images), logits)
        for name, value in average.state().items():
            assert torch.equal(network.state_dict()[name], value)
        1 / 0  # noqa: B018
    assert all(torch.equal(value, weights[name]) for name, value in network.state_dict().items())


def test_only_what_is_trained_is_averaged_and_frozen_weights_stay() -> None:
    network, trainable = partitioned(classifier("residual"), "all-but-last-blocks", blocks=1)
    infinite = torch.tensor([0.0, -torch.inf])
    network.classifier.head.register_buffer("mask", infinite)
    average, before = WeightAverage(network, 0.9), clones(network)
    parameters = {name for name, _ in network.named_parameters()}
    assert average.state().keys() & parameters == {f"classifier.{name}" for name in trainable}
    average.update(1)
    average.update(2)
    with average.applied():
        assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_the_averaged_weights_are_validated_and_kept(tmp_path: Path) -> None:
    """By hand: the same training without an average, followed step by step."""
    training = make_training(epochs=3, ema=0.6)
    network, inputs = make_network(), make_inputs()
    history = train(network, inputs, training, COMPUTE, tmp_path / "resume")

    other, averages, step = make_network(), {}, 0
    update = torch.optim.SGD.step
    averages = {name: value for name, value in clones(other).items() if value.is_floating_point()}

    def followed(optimizer: torch.optim.SGD) -> object:
        nonlocal step
        result, step = update(optimizer), step + 1
        decay = min(0.6, 1 - step ** (-2 / 3))
        for name in averages:
            averages[name] = decay * averages[name] + (1 - decay) * other.state_dict()[name]
        return result

    losses: list[float] = []

    def ended(metrics: loop.EpochMetrics) -> bool:
        network = make_network()
        network.load_state_dict({**other.state_dict(), **averages})
        logits = predict(network, inputs.val, 8, COMPUTE)
        losses.append(float(nn.functional.cross_entropy(logits, torch.from_numpy(inputs.val_labels))))
        return False

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(torch.optim.SGD, "step", followed)
        plain = train(other, inputs, make_training(epochs=3), COMPUTE, tmp_path / "plain", ended)
    assert [metrics.val_loss for metrics in history.epochs] == pytest.approx(losses, rel=1e-5)
    assert [metrics.val_loss for metrics in plain.epochs] != pytest.approx(losses, rel=1e-3)
    # the average changes nothing in training itself
    assert [metrics.train_loss for metrics in history.epochs] == [
        metrics.train_loss for metrics in plain.epochs
    ]
    kept = predict(network, inputs.val, 8, COMPUTE)
    loss = float(nn.functional.cross_entropy(kept, torch.from_numpy(inputs.val_labels)))
    assert loss == pytest.approx(losses[history.best_epoch - 1], rel=1e-5)


def test_training_with_everything_resumes_with_the_same_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = make_training(
        ema=0.9,
        mixup=0.2,
        cutmix=1.0,
        clip_grad=1.0,
        optimizer=PartSpec(name="adamw", options={"lr": 0.01, "layer_decay": 0.5, "weight_decay": 0.05}),
        schedule=PartSpec(name="cosine", options={"warmup_epochs": 1, "noise": 0.1}),
    )
    monkeypatch.setattr(loop, "SAVE_EVERY", 0.0)
    whole, resumed = make_network(), make_network()
    expected = train(whole, make_inputs(), training, COMPUTE, tmp_path / "whole")
    train(make_network(), make_inputs(), training, COMPUTE, tmp_path / "resume", lambda m: m.epoch == 3)
    notes: list[str] = []
    history = train(resumed, make_inputs(), training, COMPUTE, tmp_path / "resume", note=notes.append)
    assert not notes

    def numbers(history: loop.History) -> list[tuple[float, ...]]:
        return [(m.train_loss, m.val_loss, m.val_accuracy, m.lr) for m in history.epochs]

    assert numbers(history) == numbers(expected)
    assert all(torch.equal(value, whole.state_dict()[name]) for name, value in resumed.state_dict().items())


def test_a_checkpoint_without_the_average_or_with_another_networks_is_refused(tmp_path: Path) -> None:
    network = make_network()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    state = trained_state(network)
    average = WeightAverage(network, 0.9)
    train_a_step(network, 1)
    average.update(1)
    expected = {name: value.clone() for name, value in average.state().items()}

    save_checkpoint(tmp_path / "with", Checkpoint(state), network, optimizer, average)
    fresh = WeightAverage(make_network(), 0.9)
    assert load_checkpoint(tmp_path / "with", network, optimizer, state, fresh) is not None
    assert all(torch.equal(value, expected[name]) for name, value in fresh.state().items())

    save_checkpoint(tmp_path / "without", Checkpoint(state), network, optimizer)
    with pytest.raises(RunFolderError, match=r"average\.safetensors cannot be read"):
        load_checkpoint(tmp_path / "without", network, optimizer, state, average)
    other = WeightAverage(nn.Linear(2, 2), 0.9)
    with pytest.raises(RunFolderError, match="another network"):
        load_checkpoint(tmp_path / "with", network, optimizer, state, other)
    path = tmp_path / "with" / "average.safetensors"
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)
    with pytest.raises(RunFolderError, match=r"average\.safetensors is not as tlkit wrote it"):
        load_checkpoint(tmp_path / "with", network, optimizer, state, average)
