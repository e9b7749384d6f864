"""Cached features in whole runs: they change no result, are reused, and are computed where they must be."""

from __future__ import annotations

import pytest
import torch
from small_runs import BACKBONES, RECIPE, Runner, history, predictions

#: TF32, which a GPU trains in, has 10 bits, and rounds another sum in a batch of another size.
PRECISION = 1e-3 if torch.cuda.is_available() else 1e-4


@pytest.mark.parametrize("kind", BACKBONES)
def test_cached_features_change_no_result(kind: str, run: Runner) -> None:
    """Same losses in every epoch, same predictions, dropout and drop path included."""
    cached, whole = run(kind), run(kind, overrides={"features.cache": False})
    for phase in ("bottleneck", "fine-tune"):
        for one, other in zip(history(cached, phase), history(whole, phase), strict=True):
            assert one["train_loss"] == pytest.approx(other["train_loss"], rel=PRECISION)
            assert one["val_loss"] == pytest.approx(other["val_loss"], rel=PRECISION)
        assert predictions(cached, phase) == predictions(whole, phase)
    assert cached.results.phases[1].features.cached
    assert whole.results.phases[1].features.why_not == "features.cache is false"
    assert whole.results.phases[1].features.computed == 0


def test_cached_features_change_no_result_of_what_fine_tuning_can_do(run: Runner) -> None:
    """Mixup, averaged weights and so on, and the drop path of the transformer."""
    options = {
        "training.mixup": 0.4,
        "training.loss": {"name": "cross-entropy", "label_smoothing": 0.1},
        "training.ema": 0.9,
        "training.clip_grad": 0.5,
        "training.optimizer": {"name": "adamw", "lr": 1e-3, "layer_decay": 0.6},
        "training.schedule": {"name": "cosine", "warmup_epochs": 1},
        "training.monitor": "loss",
    }
    cached = run("transformer", overrides=options)
    whole = run("transformer", overrides={**options, "features.cache": False})
    for phase in ("bottleneck", "fine-tune"):
        for one, other in zip(history(cached, phase), history(whole, phase), strict=True):
            for column in ("train_loss", "val_loss", "lr"):
                assert one[column] == pytest.approx(other[column], rel=PRECISION)
        assert predictions(cached, phase) == predictions(whole, phase)
    result = cached.results.phases[0]
    losses = [row["val_loss"] for row in history(cached, "bottleneck")]
    assert (result.monitor, result.best_value) == ("loss", min(losses))
    assert result.best_epoch == losses.index(min(losses)) + 1


def test_another_head_rate_and_seed_reuse_every_feature(run: Runner) -> None:
    first = run()
    features = [phase.features for phase in first.results.phases]
    # one pass computes both phases' features: it counts for the first
    assert [(use.computed, use.reused) for use in features] == [(22, 0), (0, 22)]
    again = run(overrides={"head": {"name": "mlp", "hidden": 8}, "phase.bottleneck.optimizer.lr": 0.1})
    for phase in again.results.phases:
        assert (phase.features.computed, phase.features.reused) == (0, 22)


def test_views_take_turns_and_are_shared(run: Runner) -> None:
    options = {"phase.fine-tune.augmentation": {"name": "affine", "rotation": 10, "views": 3}}
    first = run(overrides=options)
    # two more views of the training images; view 0 and validation came with the bottleneck's
    assert first.results.phases[1].features.computed == 16 * 2
    second = run(overrides={**options, "phase.fine-tune.optimizer.lr": 0.1})
    assert second.results.phases[1].features.reused == 16 * 3 + 6


def test_fresh_views_are_never_cached(run: Runner) -> None:
    options = {"phase.fine-tune.augmentation": {"name": "affine", "rotation": 10, "views": "fresh"}}
    features = run(overrides=options).results.phases[1].features
    assert not features.cached
    assert features.why_not == "views are drawn afresh each epoch"
    assert features.computed + features.reused == 6  # validation


def test_features_are_computed_again_where_an_earlier_phase_changed_the_network(run: Runner) -> None:
    """A phase whose frozen part was trained before it cannot use the pretrained network's features."""
    text = RECIPE + '\n[[phase]]\nname = "head-again"\nstart_from = "fine-tune"\n'
    phases = run(text=text).results.phases
    assert phases[2].features.computed == 22
    assert phases[2].parameters.trainable == 96 * 2 + 2
