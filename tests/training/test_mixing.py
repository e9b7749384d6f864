"""Mixup and CutMix: against timm's own, and in training with and without cached features."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from networks import classifier, partitioned
from small_training import COMPUTE, TensorFeed, make_inputs, make_network, make_training
from timm.data.mixup import Mixup, mixup_target
from torch import Tensor, nn

from tlkit.recipe.schema import TrainingSpec
from tlkit.training import loop
from tlkit.training.loop import train
from tlkit.training.mixing import Mixer, mixed_loss, opposite


class SameDraws:
    """Draws for timm's Mixup, which uses numpy's global functions, the numbers that a generator draws."""

    def __init__(self, seed: int) -> None:
        self._generator = np.random.default_rng(seed)
        self._first = True

    def rand(self) -> float:
        # timm asks first whether to mix at all, then for the choice between the two
        self._first, first = not self._first, self._first
        return 0.0 if first else self._generator.random()

    def beta(self, a: float, b: float) -> float:
        return self._generator.beta(a, b)

    def randint(self, low: int, high: int, size: None = None) -> int:
        assert low == 0
        return int(self._generator.integers(high))


def mixer(seed: int, **options: float) -> Mixer:
    return Mixer(TrainingSpec(**options), np.random.default_rng(seed))


@pytest.mark.parametrize(
    "options", [{"mixup": 0.2}, {"mixup": 1.0}, {"cutmix": 1.0}, {"mixup": 0.8, "cutmix": 1.0}]
)
def test_batches_are_mixed_as_timm_mixes_them(
    options: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    images = torch.randn(6, 3, 9, 12, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(6) % 3
    kinds = set()
    for seed in range(12):
        (mixed,), own = mixer(seed, **options).mix((images,), 6)
        monkeypatch.setattr("timm.data.mixup.np.random", SameDraws(seed))
        theirs = Mixup(
            mixup_alpha=options.get("mixup", 0.0),
            cutmix_alpha=options.get("cutmix", 0.0),
            label_smoothing=0.0,
            num_classes=3,
        )
        expected, targets = theirs(images.clone(), labels)
        monkeypatch.undo()
        assert torch.allclose(mixed, expected, atol=1e-6), seed
        assert torch.allclose(mixup_target(labels, 3, own), targets), seed
        kinds.add(bool(torch.isin(mixed, images).all()))  # CutMix moves pixels, mixup makes new ones
    assert kinds == {name == "cutmix" for name in options}


def test_nothing_is_mixed_by_default() -> None:
    images = torch.randn(4, 3, 8, 8)
    crossing, own = mixer(0).mix((images,), 4)
    assert crossing[0] is images
    assert own == 1


def test_all_tensors_and_rows_of_an_image_are_mixed_alike() -> None:
    """As they cross a frontier: one with two rows per image, in an odd batch."""
    pooled, rows = torch.arange(5.0)[:, None], torch.arange(10.0)[:, None]
    (first, second), own = mixer(1, mixup=1.0).mix((pooled, rows), 5)
    assert 0 < own < 1
    assert torch.allclose(first, own * pooled + (1 - own) * pooled.flip(0))
    assert opposite(rows, 5).flatten().tolist() == [8, 9, 6, 7, 4, 5, 2, 3, 0, 1]
    assert torch.allclose(second, own * rows + (1 - own) * opposite(rows, 5))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_is_that_of_timms_soft_targets_with_class_weights(smoothing: float) -> None:
    generator = torch.Generator().manual_seed(0)
    logits, weights = torch.randn(7, 3, generator=generator), torch.tensor([0.5, 1.0, 2.0])
    labels = torch.arange(7) % 3
    loss = nn.CrossEntropyLoss(weights, label_smoothing=smoothing)
    soft = mixup_target(labels, 3, 0.3, smoothing)
    losses = -(soft * weights * logits.log_softmax(1)).sum(1)
    expected = losses.sum() / weights[labels].sum()  # as the loss of hard labels divides
    assert torch.allclose(mixed_loss(loss, logits, labels, 0.3), expected)
    assert torch.equal(mixed_loss(loss, logits, labels, 1.0), loss(logits, labels))


@pytest.mark.parametrize("options", [{"mixup": 0.4}, {"cutmix": 1.0}, {"mixup": 0.4, "cutmix": 1.0}])
def test_mixing_changes_training_and_is_the_same_again_and_after_an_interruption(
    options: dict[str, float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def losses(folder: str, last: int = 4, **options: float) -> list[float]:
        history = train(
            make_network(),
            make_inputs(),
            make_training(epochs=4, **options),
            COMPUTE,
            tmp_path / folder,
            lambda metrics: metrics.epoch == last,
        )
        return [metrics.train_loss for metrics in history.epochs]

    whole = losses("whole", **options)
    assert losses("plain")[0] != whole[0]
    monkeypatch.setattr(loop, "SAVE_EVERY", 0.0)
    assert losses("resume", last=2, **options) == whole[:2]
    assert losses("resume", **options) == whole


def test_cached_features_are_mixed_as_features_that_are_not_cached(tmp_path: Path) -> None:
    """Manifold mixup: the suffix sees mixed features of plain images, whoever computes them."""
    images = torch.randn(12, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    labels = np.arange(12) % 3
    seen: list[list[Tensor]] = []
    losses = []
    for cached in (True, False):
        network, _ = partitioned(classifier("residual"), "all-but-last-blocks", blocks=1)
        (features,) = network.prefix(images)
        assert features.ndim == 4

        class Feed(TensorFeed):
            def batches(self, order, size, epoch):  # type: ignore[no-untyped-def]
                for indices, (batch,) in super().batches(order, size, epoch):
                    yield indices, (batch,) if cached else network.prefix(batch)  # noqa: B023

        entered: list[Tensor] = []
        seen.append(entered)
        forward = network.forward

        def recorded(*crossing: Tensor) -> Tensor:
            entered.extend(crossing)  # noqa: B023
            return forward(*crossing)  # noqa: B023

        network.forward = recorded  # type: ignore[method-assign]
        feed = Feed(features if cached else images)
        inputs = dataclasses.replace(
            make_inputs(12), train=feed, val=feed, train_labels=labels, val_labels=labels, classes=3
        )
        training = make_training(epochs=2, batch_size=12, mixup=1.0)
        history = train(network, inputs, training, COMPUTE, tmp_path / f"{cached}")
        losses.append([metrics.train_loss for metrics in history.epochs])
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    for ours, theirs in zip(*seen, strict=True):
        assert torch.allclose(ours, theirs, atol=1e-4)
    assert not torch.isin(seen[0][0], features).all()
