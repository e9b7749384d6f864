"""The history of a phase: its epochs' metrics, and which epoch was best."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from pydantic import FiniteFloat

from tlkit.parts.task import Task
from tlkit.recipe.schema import Monitor

#: The columns of history.csv.
COLUMNS: dict[Task, tuple[str, ...]] = {
    "multiclass": (
        "epoch",
        "train_loss",
        "train_accuracy",
        "val_loss",
        "val_accuracy",
        "val_balanced_accuracy",
        "lr",
        "seconds",
    ),
    "multilabel": ("epoch", "train_loss", "val_loss", "val_mean_average_precision", "lr", "seconds"),
}


@dataclass(frozen=True, slots=True)
class EpochMetrics:
    """One epoch, as in a row of history.csv.

    Attributes:
        epoch: its number, counted from 1.
        train_loss: mean loss of the training images; with class weights, each counts as much as its class
            weighs.
        val_loss: cross-entropy on the validation images, before temperature scaling; the log loss in
            results.json is the one after. Of several labels per image, the binary one.
        val_accuracy: accuracy on the validation images, 0 to 1.
        val_balanced_accuracy: mean of the classes' accuracies on them, 0 to 1. All three are None without
            validation images.
        lr: learning rate of the epoch's last step; with layer decay, the highest of all layers.
        seconds: duration, validation included.
        val_mean_average_precision: of several labels per image, in place of accuracies: mean of the classes'
            average precision on the validation images.
        train_accuracy: accuracy on the training images, 0 to 1, in training mode: with augmentation and
            dropout, while the weights change. None with mixup, CutMix or several labels per image.
    """

    epoch: int
    train_loss: FiniteFloat
    val_loss: FiniteFloat | None
    val_accuracy: FiniteFloat | None
    val_balanced_accuracy: FiniteFloat | None
    lr: FiniteFloat
    seconds: FiniteFloat
    val_mean_average_precision: FiniteFloat | None = None
    train_accuracy: FiniteFloat | None = None

    @staticmethod
    def of(
        epoch: int,
        train_loss: float,
        scores: ValidationScores | None,
        lr: float,
        seconds: float,
        train_accuracy: float | None = None,
    ) -> EpochMetrics:
        """Makes an epoch's metrics with its scores on the validation images, if there are any."""
        return EpochMetrics(
            epoch=epoch,
            train_loss=train_loss,
            val_loss=scores.loss if scores else None,
            val_accuracy=scores.accuracy if scores else None,
            val_balanced_accuracy=scores.balanced_accuracy if scores else None,
            lr=lr,
            seconds=seconds,
            val_mean_average_precision=scores.mean_average_precision if scores else None,
            train_accuracy=train_accuracy,
        )

    @property
    def scores(self) -> ValidationScores | None:
        """The scores on the validation images; None without any."""
        if self.val_loss is None:
            return None
        return ValidationScores(
            self.val_loss, self.val_accuracy, self.val_balanced_accuracy, self.val_mean_average_precision
        )


@dataclass(frozen=True, slots=True)
class ValidationScores:
    """Scores on the validation images.

    Attributes:
        loss: cross-entropy.
        accuracy: None with several labels per image, as is the balanced one.
        balanced_accuracy: mean of the classes' accuracies.
        mean_average_precision: mean of the classes' average precision, with several labels per image.
    """

    loss: float
    accuracy: float | None
    balanced_accuracy: float | None
    mean_average_precision: float | None = None


@dataclass
class History:
    """How a phase's training went.

    Attributes:
        epochs: the metrics of each epoch.
        best_epoch: the epoch whose weights were kept; 0: the weights it started from.
        start: scores before the first epoch, where it starts from weights that an earlier phase trained.
        monitor: the score that epochs are compared by.
        keep: whether the "best" epoch's weights are kept, or the "last" one's.
    """

    epochs: list[EpochMetrics] = field(default_factory=list)
    best_epoch: int = 0
    start: ValidationScores | None = None
    monitor: Monitor = "accuracy"
    keep: Literal["best", "last"] = "best"

    @property
    def best(self) -> ValidationScores | None:
        """The scores of the weights that were kept; None if they were never validated."""
        return self.epochs[self.best_epoch - 1].scores if self.best_epoch else self.start

    @property
    def best_value(self) -> float | None:
        """The monitored score of the weights that were kept; None if they were never validated."""
        return None if self.best is None else float(getattr(self.best, self.monitor))

    def add(self, metrics: EpochMetrics) -> bool:
        """Adds an epoch; returns whether it is the best so far.

        The best epoch has the highest monitored score, or the lowest loss; among equal scores, the lowest
        validation loss. Trained weights that the phase starts from count as an epoch before the first.
        """
        best, scores = self.best, metrics.scores
        better = self.keep == "last" or not best or not scores or self._rank(scores) > self._rank(best)
        self.epochs.append(metrics)
        if better:
            self.best_epoch = metrics.epoch
        return better

    def _rank(self, scores: ValidationScores) -> tuple[float, float]:
        """Returns what is higher for better scores."""
        value = getattr(scores, self.monitor)
        return (-value if self.monitor == "loss" else value), -scores.loss
