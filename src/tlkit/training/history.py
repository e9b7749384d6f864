"""The history of a phase: its epochs' metrics, and which epoch was best."""

from __future__ import annotations

from dataclasses import dataclass, field

from pydantic import FiniteFloat


@dataclass(frozen=True, slots=True)
class EpochMetrics:
    """One epoch, as in a row of history.csv.

    Attributes:
        epoch: its number, counted from 1.
        train_loss: mean loss of the training images; with class weights, each counts as much as its class
            weighs.
        val_loss: cross-entropy on the validation images, before temperature scaling; the log loss in
            results.json is the one after.
        val_accuracy: accuracy on the validation images, 0 to 1.
        lr: learning rate of the first parameter group.
        seconds: duration, validation included.
    """

    epoch: int
    train_loss: FiniteFloat
    val_loss: FiniteFloat
    val_accuracy: FiniteFloat
    lr: FiniteFloat
    seconds: FiniteFloat


@dataclass(frozen=True, slots=True)
class ValidationScores:
    """Cross-entropy and accuracy on the validation images."""

    loss: float
    accuracy: float


@dataclass
class History:
    """How a phase's training went.

    Attributes:
        epochs: the metrics of each epoch.
        best_epoch: the epoch whose weights were kept; 0: the weights it started from.
        start: scores before the first epoch, where it starts from weights that an earlier phase trained.
    """

    epochs: list[EpochMetrics] = field(default_factory=list)
    best_epoch: int = 0
    start: ValidationScores | None = None

    def add(self, metrics: EpochMetrics) -> bool:
        """Adds an epoch; returns whether it is the best so far.

        The best epoch has the highest validation accuracy, and among equals the lowest validation loss.
        Trained weights that the phase starts from count as an epoch before the first.
        """
        better = self._is_better(metrics)
        self.epochs.append(metrics)
        if better:
            self.best_epoch = metrics.epoch
        return better

    def _is_better(self, metrics: EpochMetrics) -> bool:
        if self.best_epoch:
            best = self.epochs[self.best_epoch - 1]
            return (metrics.val_accuracy, -metrics.val_loss) > (best.val_accuracy, -best.val_loss)
        if self.start is None:
            return True
        return (metrics.val_accuracy, -metrics.val_loss) > (self.start.accuracy, -self.start.loss)
