"""The training loop by itself: what stops it, what it keeps, what it weighs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from networks import REGISTRY, divided, tiny
from torch import Tensor, nn

from tlkit.data.feed import Indices, batch_indices
from tlkit.errors import RecipeError
from tlkit.model.classifier import Classifier, to_layout
from tlkit.model.partition import PartitionedClassifier
from tlkit.recipe.schema import PartSpec, TrainingSpec
from tlkit.runtime.devices import ComputeConfig, choose_device, compute_config, has_bfloat16
from tlkit.training import loop
from tlkit.training.loop import TrainingInputs, class_weights, predict, train
from tlkit.training.optimizers import make_optimizer, optimizer_problems

SETTING = ComputeConfig(torch.device("cpu"), torch.float32)


class TensorFeed:
    """Images that are in memory."""

    def __init__(self, images: Tensor) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def batches(self, order: Indices, size: int, epoch: int) -> Iterator[tuple[Indices, tuple[Tensor, ...]]]:
        for places in batch_indices(order, size):
            yield places, (self.images[torch.from_numpy(places)],)


def network() -> PartitionedClassifier:
    torch.manual_seed(0)
    base = tiny(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()), size=8)
    made = Classifier(base, REGISTRY.make("head", "linear", {}, base, ["a", "b"]))
    return divided(made, "nothing", size=8)[0]


def lesson(count: int = 24) -> TrainingInputs:
    labels = np.arange(count) % 2
    images = torch.randn(count, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    images += torch.from_numpy(labels).view(-1, 1, 1, 1)
    feed = TensorFeed(images)
    return TrainingInputs(feed, labels, feed, labels, 2, ("test",))


def training(**changes: object) -> TrainingSpec:
    return TrainingSpec(
        **{"epochs": 8, "batch_size": 8, "optimizer": PartSpec(name="sgd", options={"lr": 0.05}), **changes}
    )


def test_it_learns_and_keeps_the_best_epoch(tmp_path: Path) -> None:
    split, taught = network(), lesson()
    history = train(split, taught, training(), SETTING, tmp_path / "resume")
    assert len(history.rows) == 8
    best = max(history.rows, key=lambda row: (row["val_accuracy"], -row["val_loss"]))
    assert history.best_epoch == best["epoch"]
    logits = predict(split, taught.val, 8, SETTING)
    loss = nn.functional.cross_entropy(logits, torch.from_numpy(taught.val_labels))
    assert float(loss) == pytest.approx(best["val_loss"], rel=1e-5)
    assert best["val_accuracy"] > 0.9


def test_patience(tmp_path: Path) -> None:
    still = PartSpec(name="sgd", options={"lr": 0.0})
    history = train(network(), lesson(), training(patience=3, optimizer=still), SETTING, tmp_path / "resume")
    assert len(history.rows) - history.best_epoch == 3
    assert len(history.rows) < 8


@pytest.mark.parametrize("optimizer", ["momentum", "adamw"])
def test_cut_short_it_goes_on_as_if_it_had_not_been(
    optimizer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # weights that lie in memory in another order than files have them, and an optimiser that remembers
    def wide() -> PartitionedClassifier:
        torch.manual_seed(0)
        layers = nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU()
        base = tiny(nn.Sequential(*layers), size=8)
        made = Classifier(base, REGISTRY.make("head", "linear", {}, base, ["a", "b"]))
        return divided(to_layout(made, SETTING.device), "nothing", size=8)[0]

    how = training(optimizer=PartSpec(name=optimizer, options={"lr": 0.05}))
    whole, stopped = wide(), wide()
    expected = train(whole, lesson(), how, SETTING, tmp_path / "whole")
    monkeypatch.setattr(loop, "SAVE_EVERY", 0.0)
    train(stopped, lesson(), how, SETTING, tmp_path / "resume", lambda row: row["epoch"] == 3)
    again = wide()
    history = train(again, lesson(), how, SETTING, tmp_path / "resume")
    assert [row["train_loss"] for row in history.rows] == [row["train_loss"] for row in expected.rows]
    for name, value in whole.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name


def test_a_schedule_changes_the_rate(tmp_path: Path) -> None:
    planned = PartSpec(name="cosine", options={"warmup_epochs": 2, "warmup_lr": 1e-4})
    rows = train(network(), lesson(), training(schedule=planned), SETTING, tmp_path / "resume").rows
    rates = [row["lr"] for row in rows]
    assert rates[0] == pytest.approx(1e-4)
    assert max(rates) == pytest.approx(0.05, rel=0.2)
    assert rates[-1] < 0.01


def test_losses_that_are_no_numbers_are_not_the_best(tmp_path: Path) -> None:
    wild = PartSpec(name="sgd", options={"lr": 1e30})
    split = network()
    before = {name: value.clone() for name, value in split.state_dict().items()}
    history = train(split, lesson(), training(optimizer=wild, epochs=3), SETTING, tmp_path / "resume")
    if history.best_epoch == 0:
        assert all(torch.equal(value, before[name]) for name, value in split.state_dict().items())
    assert all(torch.isfinite(value).all() for value in split.state_dict().values())


def test_rare_classes_weigh_more() -> None:
    labels = np.array([0, 0, 0, 1])
    taught = TrainingInputs(
        TensorFeed(torch.zeros(4, 3, 8, 8)), labels, TensorFeed(torch.zeros(0)), labels, 2, ()
    )
    assert class_weights(taught, training()).tolist() == pytest.approx([4 / 6, 2.0])
    assert class_weights(taught, training(class_weights="none")).tolist() == [1.0, 1.0]


@pytest.mark.parametrize(("count", "sizes"), [(9, [4, 5]), (8, [4, 4]), (10, [4, 4, 2]), (1, [1])])
def test_no_batch_of_one_image(count: int, sizes: list[int]) -> None:
    """Batch norm needs two."""
    parts = batch_indices(np.arange(count), 4)
    assert [len(part) for part in parts] == sizes
    assert np.concatenate(parts).tolist() == list(range(count))


def test_precision_and_device() -> None:
    device = torch.device("cpu")
    assert compute_config(device, "float32").dtype == torch.float32
    assert compute_config(device, "bfloat16").dtype == torch.bfloat16
    expected = torch.bfloat16 if has_bfloat16(device) else torch.float32
    assert compute_config(device, "auto").dtype == expected
    with pytest.raises(RecipeError, match="--device warp"):
        choose_device("warp")


@pytest.mark.parametrize("way", ["foreach", "differentiable"])
def test_another_of_torch_s_ways_to_step_may_be_asked_for(way: str) -> None:
    options = {"lr": 0.1, way: True}
    assert not optimizer_problems("sgd", options)
    (group,) = make_optimizer(nn.Linear(2, 2), "sgd", options).param_groups
    assert group[way]
    assert not group["fused"]
    assert make_optimizer(nn.Linear(2, 2), "sgd", {"lr": 0.1}).param_groups[0]["fused"]
