"""Which epoch of a phase is the best."""

from __future__ import annotations

import pytest

from tlkit.recipe.schema import Monitor
from tlkit.training.history import EpochMetrics, History, ValidationScores


def epoch(number: int, accuracy: float, loss: float, balanced: float = 0.5) -> EpochMetrics:
    return EpochMetrics.of(number, 1.0, ValidationScores(loss, accuracy, balanced), lr=0.1, seconds=1.0)


def add_all(history: History, scores: list[tuple[float, float]]) -> list[bool]:
    """Adds an epoch for each accuracy and loss; returns which were better than all before."""
    return [history.add(epoch(number, *pair)) for number, pair in enumerate(scores, start=1)]


def test_the_highest_accuracy_wins_whatever_the_loss() -> None:
    history = History()
    assert add_all(history, [(0.5, 0.7), (0.8, 0.9), (0.7, 0.1)]) == [True, True, False]
    assert history.best_epoch == 2
    assert [metrics.epoch for metrics in history.epochs] == [1, 2, 3]


def test_among_equal_accuracies_the_lowest_loss_wins() -> None:
    history = History()
    assert add_all(history, [(0.8, 0.5), (0.8, 0.6), (0.8, 0.4)]) == [True, False, True]
    assert history.best_epoch == 3


def test_of_equal_epochs_the_first_is_the_best() -> None:
    history = History()
    assert add_all(history, [(0.8, 0.5)] * 3) == [True, False, False]
    assert history.best_epoch == 1


@pytest.mark.parametrize(
    ("scores", "best_epoch"),
    [
        ([(0.8, 0.4), (0.7, 0.1)], 0),  # no better than the start
        ([(0.8, 0.5), (0.8, 0.39)], 2),  # equal accuracy, lower loss
        ([(0.9, 2.0), (0.85, 0.1)], 1),  # once an epoch is better, later ones are compared with it
    ],
)
def test_trained_weights_that_a_phase_starts_from_count_as_an_epoch(
    scores: list[tuple[float, float]], best_epoch: int
) -> None:
    history = History(start=ValidationScores(loss=0.4, accuracy=0.8, balanced_accuracy=0.9))
    add_all(history, scores)
    assert history.best_epoch == best_epoch
    assert len(history.epochs) == len(scores)


@pytest.mark.parametrize(
    ("monitor", "best_epoch", "value"),
    [("accuracy", 1, 0.9), ("balanced_accuracy", 3, 0.8), ("loss", 2, 0.2)],
)
def test_the_monitored_score_determines_the_best_epoch(
    monitor: Monitor, best_epoch: int, value: float
) -> None:
    history = History(monitor=monitor)
    history.add(epoch(1, accuracy=0.9, loss=0.5, balanced=0.6))
    history.add(epoch(2, accuracy=0.8, loss=0.2, balanced=0.7))
    history.add(epoch(3, accuracy=0.7, loss=0.6, balanced=0.8))
    history.add(epoch(4, accuracy=0.6, loss=0.7, balanced=0.8))  # a tie, with a higher loss
    assert (history.best_epoch, history.best_value) == (best_epoch, value)


def test_the_best_value_is_that_of_the_start_until_an_epoch_is_better() -> None:
    assert History().best_value is None
    history = History(start=ValidationScores(0.4, 0.8, 0.9), monitor="loss")
    assert not history.add(epoch(1, accuracy=1.0, loss=0.5))
    assert (history.best_epoch, history.best_value) == (0, 0.4)
    assert history.add(epoch(2, accuracy=0.1, loss=0.3))
    assert (history.best_epoch, history.best_value) == (2, 0.3)
