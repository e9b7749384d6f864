"""What a run prints of each epoch, with and without validation images."""

from __future__ import annotations

import pytest

from tlkit.cli.observer import ConsoleObserver
from tlkit.recipe.recipe import make_recipe
from tlkit.training.history import EpochMetrics, ValidationScores


@pytest.mark.parametrize(
    ("monitor", "scores", "line"),
    [
        ("accuracy", None, "fine-tune 2/8: loss 0.5000, 1.5 s"),
        (
            "accuracy",
            ValidationScores(loss=0.25, accuracy=0.75, balanced_accuracy=0.5),
            "fine-tune 2/8: loss 0.5000, validation loss 0.2500, accuracy 0.750, 1.5 s",
        ),
        (
            "balanced_accuracy",
            ValidationScores(loss=0.25, accuracy=0.75, balanced_accuracy=0.5),
            "fine-tune 2/8: loss 0.5000, validation loss 0.2500, balanced accuracy 0.500, 1.5 s",
        ),
    ],
)
def test_an_epoch_is_one_line(
    monitor: str, scores: ValidationScores | None, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    training = {"epochs": 8, "monitor": monitor}
    recipe = make_recipe({"name": "x", "backbone": "convnet3", "phase": [{"name": "fine-tune", **training}]})
    metrics = EpochMetrics.of(2, 0.5, scores, 1e-3, 1.5)
    ConsoleObserver().tlkit_epoch_ended(recipe.phases[0], 2, metrics)
    assert capsys.readouterr().err == f"{line}\n"
