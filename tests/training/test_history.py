"""Which epoch of a phase is the best."""

from __future__ import annotations

import pytest

from tlkit.training.history import EpochMetrics, History, ValidationScores


def epoch(number: int, accuracy: float, loss: float) -> EpochMetrics:
    return EpochMetrics(number, train_loss=1.0, val_loss=loss, val_accuracy=accuracy, lr=0.1, seconds=1.0)


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
    history = History(start=ValidationScores(loss=0.4, accuracy=0.8))
    add_all(history, scores)
    assert history.best_epoch == best_epoch
    assert len(history.epochs) == len(scores)
