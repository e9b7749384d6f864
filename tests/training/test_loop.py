"""The training loop by itself: when it stops, which weights it returns, how it weighs classes."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from networks import REGISTRY, partitioned, tiny
from small_training import COMPUTE, make_inputs, make_network, make_training
from torch import Tensor, nn

from tlkit.data.feed import batch_indices
from tlkit.errors import RecipeError, TrainingError
from tlkit.model.classifier import Classifier, to_layout
from tlkit.model.partition import Partition
from tlkit.recipe.schema import PartSpec
from tlkit.runtime.devices import choose_device, compute_config, has_bfloat16
from tlkit.training import loop
from tlkit.training.history import EpochMetrics, ValidationScores
from tlkit.training.loop import TrainingInputs, class_weights, predict, train, validate
from tlkit.utils.hashing import seed


def test_it_trains_and_returns_the_weights_of_the_best_epoch(tmp_path: Path) -> None:
    network, inputs = make_network(), make_inputs()
    history = train(network, inputs, make_training(), COMPUTE, tmp_path / "resume")
    assert [metrics.epoch for metrics in history.epochs] == list(range(1, 9))
    best = max(history.epochs, key=lambda metrics: (metrics.val_accuracy, -metrics.val_loss))
    assert history.best_epoch == best.epoch
    logits = predict(network, inputs.val, 8, COMPUTE)
    loss = nn.functional.cross_entropy(logits, torch.from_numpy(inputs.val_labels))
    assert float(loss) == pytest.approx(best.val_loss, rel=1e-5)
    assert best.val_accuracy > 0.9


def test_the_training_accuracy_is_that_of_the_batches_in_training_mode(tmp_path: Path) -> None:
    inputs, constant = make_inputs(22), PartSpec(name="sgd", options={"lr": 0.0})
    training, network = make_training(epochs=1, optimizer=constant), make_network()
    (metrics,) = train(network, inputs, training, COMPUTE, tmp_path / "resume").epochs
    order = np.random.default_rng(seed("test", 0, "order")).permutation(22)
    network.train()
    with torch.no_grad():
        correct = [
            (network(images).argmax(1).numpy() == inputs.train_labels[indices]).sum()
            for indices, (images,) in inputs.train.batches(order, 8, 0)
        ]
    assert metrics.train_accuracy == pytest.approx(sum(correct) / 22)
    mixed = train(network, inputs, make_training(epochs=1, mixup=0.2), COMPUTE, tmp_path / "resume")
    assert mixed.epochs[0].train_accuracy is None


def test_patience(tmp_path: Path) -> None:
    constant = make_training(patience=3, optimizer=PartSpec(name="sgd", options={"lr": 0.0}))
    history = train(make_network(), make_inputs(), constant, COMPUTE, tmp_path / "resume")
    assert len(history.epochs) - history.best_epoch == 3
    assert len(history.epochs) < 8


def test_weights_that_are_already_trained_are_returned_unless_an_epoch_is_better(tmp_path: Path) -> None:
    network, inputs = make_network(), make_inputs(starts_trained=True)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    scores = validate(network, inputs, make_training(), COMPUTE)
    harmful = make_training(epochs=2, optimizer=PartSpec(name="sgd", options={"lr": 1e3}))
    history = train(network, inputs, harmful, COMPUTE, tmp_path / "resume")
    assert history.start == scores
    assert (len(history.epochs), history.best_epoch) == (2, 0)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    history = train(network, inputs, make_training(), COMPUTE, tmp_path / "resume")
    assert history.start == scores
    assert history.best_epoch > 0


def test_the_caller_sees_each_epoch_and_may_end_training(tmp_path: Path) -> None:
    seen, trained_images = [], []
    history = train(
        make_network(),
        make_inputs(),
        make_training(),
        COMPUTE,
        tmp_path / "resume",
        lambda metrics: seen.append(metrics) or metrics.epoch == 2,
        lambda _: trained_images.append,
    )
    assert seen == history.epochs
    assert len(seen) == 2
    assert trained_images == [8] * 6


@pytest.mark.parametrize("optimizer", ["momentum", "adamw"])
def test_interrupted_training_resumes_with_the_same_numbers(
    optimizer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # weights whose memory layout is not the one of files, and an optimiser with a state
    def make_wide_network() -> Partition:
        torch.manual_seed(0)
        layers = nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU()
        base = tiny(nn.Sequential(*layers), size=8)
        classifier = Classifier(base, REGISTRY.make("head", "linear", {}, base, ["a", "b"]))
        return partitioned(to_layout(classifier, COMPUTE.device), "nothing", size=8)[0]

    training = make_training(optimizer=PartSpec(name=optimizer, options={"lr": 0.05}))
    uninterrupted, stopped, resumed = make_wide_network(), make_wide_network(), make_wide_network()
    expected = train(uninterrupted, make_inputs(), training, COMPUTE, tmp_path / "uninterrupted")
    monkeypatch.setattr(loop, "SAVE_EVERY", 0.0)
    resume = tmp_path / "resume"
    train(stopped, make_inputs(), training, COMPUTE, resume, lambda metrics: metrics.epoch == 3)
    done: list[int] = []
    ticks: list[int] = []

    def start_progress(count: int) -> Callable[[int], object]:
        done.append(count)
        return ticks.append

    inputs = make_inputs()
    history = train(resumed, inputs, training, COMPUTE, resume, start_progress=start_progress)
    assert done == [3 * len(inputs.train)]
    assert done[0] + sum(ticks) == training.epochs * len(inputs.train)
    assert [metrics.train_loss for metrics in history.epochs] == [
        metrics.train_loss for metrics in expected.epochs
    ]
    assert history.best_epoch == expected.best_epoch
    for name, value in uninterrupted.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], value), name


def test_a_schedule_sets_the_learning_rate_of_each_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against the formulas: a linear warm-up of two epochs of three steps, then half a cosine."""
    rates: list[float] = []
    step = torch.optim.SGD.step

    def recorded(optimizer: torch.optim.SGD) -> object:
        rates.append(optimizer.param_groups[0]["lr"])
        return step(optimizer)

    monkeypatch.setattr(torch.optim.SGD, "step", recorded)
    cosine = PartSpec(name="cosine", options={"warmup_epochs": 2, "warmup_lr": 1e-4})
    training = make_training(schedule=cosine)
    history = train(make_network(), make_inputs(), training, COMPUTE, tmp_path / "resume")
    warm_up = [1e-4 + step * (0.05 - 1e-4) / 6 for step in range(6)]
    decay = [0.05 * (1 + math.cos(math.pi * step / 24)) / 2 for step in range(6, 24)]
    assert rates == pytest.approx(warm_up + decay)
    assert [metrics.lr for metrics in history.epochs] == rates[2::3]


def test_label_smoothing_is_torchs_and_validation_has_none(tmp_path: Path) -> None:
    network, inputs = make_network(), make_inputs()
    loss = REGISTRY.make("loss", "cross-entropy", {"label_smoothing": 0.2}, ["a", "b"], [12, 12])
    inputs = dataclasses.replace(inputs, loss=loss)
    training = make_training(epochs=1, batch_size=24, optimizer=PartSpec(name="sgd", options={"lr": 0.0}))
    network.train()
    images, labels = inputs.train.images, torch.from_numpy(inputs.train_labels)
    with torch.no_grad():
        smoothed = nn.functional.cross_entropy(network(images), labels, label_smoothing=0.2)
    (metrics,) = train(network, inputs, training, COMPUTE, tmp_path / "resume").epochs
    assert metrics.train_loss == pytest.approx(float(smoothed))
    plain = nn.functional.cross_entropy(predict(network, inputs.val, 8, COMPUTE), labels)
    assert metrics.val_loss == pytest.approx(float(plain))


@pytest.mark.parametrize("clip_grad", [0.0, 0.01, 1e6])
def test_gradients_are_clipped_by_their_norm(clip_grad: float, tmp_path: Path) -> None:
    network = make_network()
    before = [value.detach().clone() for value in network.parameters()]
    training = make_training(
        epochs=1,
        batch_size=24,
        clip_grad=clip_grad,
        optimizer=PartSpec(name="momentum", options={"lr": 1.0, "momentum": 0.0}),
    )
    train(network, make_inputs(), training, COMPUTE, tmp_path / "resume")
    steps = [
        (value.detach() - old).flatten() for value, old in zip(network.parameters(), before, strict=True)
    ]
    norm = float(torch.cat(steps).norm())  # of the gradient, at a rate of 1
    assert norm == pytest.approx(0.01, rel=1e-4) if clip_grad == 0.01 else norm > 0.1


@pytest.mark.parametrize("monitor", ["accuracy", "balanced_accuracy", "loss"])
def test_the_kept_weights_are_those_of_the_best_monitored_epoch(monitor: str, tmp_path: Path) -> None:
    network, inputs = make_network(), make_inputs()
    labels = np.arange(24) % 4 // 3  # three of the first class for one of the second
    inputs = dataclasses.replace(inputs, val_labels=labels)
    history = train(network, inputs, make_training(monitor=monitor), COMPUTE, tmp_path / "resume")
    kept = validate(network, inputs, make_training(), COMPUTE)
    assert history.best_value == pytest.approx(getattr(kept, monitor))
    column = [getattr(metrics.scores, monitor) for metrics in history.epochs]
    assert history.best_value == (min if monitor == "loss" else max)(column)
    predicted = predict(network, inputs.val, 8, COMPUTE).argmax(1).numpy()
    recalls = [(predicted[labels == label] == label).mean() for label in (0, 1)]
    assert kept.balanced_accuracy == pytest.approx(np.mean(recalls))


def test_training_whose_loss_is_not_finite_stops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "SAVE_EVERY", 0.0)
    diverging = make_training(optimizer=PartSpec(name="sgd", options={"lr": 1e30}))
    seen: list[EpochMetrics] = []
    with pytest.raises(
        TrainingError, match=r"phase 'head', epoch 1: the (training|validation) loss is (nan|inf)"
    ):
        train(make_network(), make_inputs(), diverging, COMPUTE, tmp_path / "resume", seen.append)
    assert not seen
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("loss", [math.nan, math.inf])
@pytest.mark.parametrize(("starts_trained", "when"), [(False, "epoch 1"), (True, "before its first epoch")])
def test_a_validation_loss_that_is_not_finite_ends_a_phase(
    loss: float, starts_trained: bool, when: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "validate", lambda *_: ValidationScores(loss, 0.5, 0.5))
    inputs = make_inputs(starts_trained=starts_trained)
    with pytest.raises(TrainingError, match=f"phase 'head', {when}: the validation loss is {loss}"):
        train(make_network(), inputs, make_training(), COMPUTE, tmp_path / "resume")


def losses_of_an_epoch(
    network: Partition, inputs: TrainingInputs, weights: Tensor
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yields the losses and the weights of the images of each batch of the first epoch, at a rate of 0."""
    order = np.random.default_rng(seed("test", 0, "order")).permutation(len(inputs.train))
    network.train()
    for indices, (images,) in inputs.train.batches(order, 8, 0):
        targets = torch.from_numpy(inputs.train_labels[indices])
        with torch.no_grad():
            yield nn.functional.cross_entropy(network(images), targets, reduction="none"), weights[targets]


@pytest.mark.parametrize("class_weighting", ["balanced", "none"])
def test_the_training_loss_is_a_mean_of_images_weighed_by_class(class_weighting: str, tmp_path: Path) -> None:
    network, inputs = make_network(), make_inputs(22)
    labels = np.arange(22) % 5 // 4  # few of the second class, and not as many in each batch
    inputs = dataclasses.replace(inputs, train_labels=labels)
    constant = PartSpec(name="sgd", options={"lr": 0.0})
    training = make_training(epochs=1, optimizer=constant, class_weights=class_weighting)
    (metrics,) = train(network, inputs, training, COMPUTE, tmp_path / "resume").epochs
    batches = list(losses_of_an_epoch(network, inputs, class_weights(labels, 2, training)))
    losses, weights = (torch.cat(values) for values in zip(*batches, strict=True))
    assert metrics.train_loss == pytest.approx(float((losses * weights).sum() / weights.sum()), rel=1e-6)
    if class_weighting == "none":  # to the bit the mean of the batches' means, each as often as it has images
        total = torch.zeros(())
        for values, _ in batches:
            total += values.mean() * len(values)
        assert metrics.train_loss == float(total) / 22


def test_scores_are_those_of_the_main_process(monkeypatch: pytest.MonkeyPatch) -> None:
    main = ValidationScores(loss=0.25, accuracy=0.75, balanced_accuracy=0.5)
    monkeypatch.setattr(loop, "broadcast_from_main", lambda _: main)
    assert validate(make_network(), make_inputs(), make_training(), COMPUTE) is main


def test_a_phase_whose_checkpoint_is_damaged_begins_again_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "SAVE_EVERY", 0.0)
    training, folder = make_training(epochs=4), tmp_path / "resume"
    notes: list[str] = []
    whole = train(make_network(), make_inputs(), training, COMPUTE, tmp_path / "whole", note=notes.append)
    train(make_network(), make_inputs(), training, COMPUTE, folder, lambda metrics: metrics.epoch == 2)
    (folder / "now.safetensors").write_bytes(b"damaged")
    epochs: list[int] = []
    resumed = train(
        make_network(),
        make_inputs(),
        training,
        COMPUTE,
        folder,
        lambda metrics: epochs.append(metrics.epoch),
        note=notes.append,
    )
    (note,) = notes
    assert note.startswith("phase 'head' starts again, because its checkpoint cannot be used: ")
    assert "now.safetensors" in note
    assert epochs == [1, 2, 3, 4]
    assert [metrics.train_loss for metrics in resumed.epochs] == [
        metrics.train_loss for metrics in whole.epochs
    ]


def test_rare_classes_have_more_weight() -> None:
    labels = np.array([0, 0, 0, 1])
    assert class_weights(labels, 2, make_training()).tolist() == pytest.approx([4 / 6, 2.0])
    assert class_weights(labels, 2, make_training(class_weights="none")).tolist() == [1.0, 1.0]


@pytest.mark.parametrize(("count", "sizes"), [(9, [4, 5]), (8, [4, 4]), (10, [4, 4, 2]), (1, [1])])
def test_the_last_batch_is_not_a_single_image(count: int, sizes: list[int]) -> None:
    """Batch norm needs two."""
    batches = batch_indices(np.arange(count), 4)
    assert [len(indices) for indices in batches] == sizes
    assert np.concatenate(batches).tolist() == list(range(count))


def test_precision_and_device() -> None:
    device = torch.device("cpu")
    assert compute_config(device, "float32").dtype == torch.float32
    assert compute_config(device, "bfloat16").dtype == torch.bfloat16
    expected = torch.bfloat16 if has_bfloat16(device) else torch.float32
    assert compute_config(device, "auto").dtype == expected
    with pytest.raises(RecipeError, match="- device warp: not available here"):
        choose_device("warp")
