"""The built-in losses: against torch's, and in a phase's training."""

from __future__ import annotations

import pytest
import torch
from networks import REGISTRY
from torch.nn import functional

from tlkit.errors import PluginError
from tlkit.parts.loss import Loss

LOGITS = torch.randn(7, 3, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(7) % 3


def loss(name: str, **options: float) -> Loss:
    made: Loss = REGISTRY.make("loss", name, options, ["a", "b", "c"], [4, 2, 1])
    return made


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_cross_entropy_is_torchs_of_each_image(smoothing: float) -> None:
    losses = loss("cross-entropy", label_smoothing=smoothing)(LOGITS, LABELS)
    mean = functional.cross_entropy(LOGITS, LABELS, label_smoothing=smoothing)
    assert losses.shape == (7,) and torch.allclose(losses.mean(), mean)


def test_focal_is_cross_entropy_times_a_power_of_what_the_label_lacks() -> None:
    probabilities = LOGITS.softmax(1)[torch.arange(7), LABELS]
    expected = -((1 - probabilities) ** 1.5) * probabilities.log()
    assert torch.allclose(loss("focal", gamma=1.5)(LOGITS, LABELS), expected, atol=1e-6)
    plain = loss("cross-entropy")(LOGITS, LABELS)
    assert torch.allclose(loss("focal", gamma=0.0)(LOGITS, LABELS), plain)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("cross-entropy", {"label_smoothing": 1.0}, "label_smoothing must be at least 0 and below 1"),
        ("focal", {"gamma": -1.0}, "gamma must be at least 0, and is -1.0"),
        ("focal", {"gama": 1.0}, "option 'gama' is unknown .did you mean 'gamma'"),
        ("focl", {}, "no loss is called 'focl' .did you mean 'focal'"),
    ],
)
def test_mistakes(name: str, options: dict[str, float], message: str) -> None:
    with pytest.raises(PluginError, match=message):
        loss(name, **options)


def test_binary_cross_entropy_is_torchs_of_each_image() -> None:
    labels = torch.tensor([[1, 0, 1], [0, 0, 0]]).repeat(4, 1)[:7]
    losses = loss("binary-cross-entropy")(LOGITS, labels)
    mean = functional.binary_cross_entropy_with_logits(LOGITS, labels.float())
    assert losses.shape == (7,) and torch.allclose(losses.mean(), mean)
