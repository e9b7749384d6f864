"""Cross-validates a head on features that are in memory, all folds at once."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tlkit.analysis.shared_dropout import SharedDropout
from tlkit.errors import TrainingError
from tlkit.parts.head import SelfFittingHead
from tlkit.parts.loss import Loss
from tlkit.recipe.schema import TrainingSpec
from tlkit.runtime.devices import one_thread
from tlkit.training.history import EpochMetrics, History, ValidationScores
from tlkit.training.loop import class_weights
from tlkit.training.optimizers import make_optimizer, make_schedule
from tlkit.utils.hashing import seed

#: A head of up to so many parameters is trained in one thread.
ONE_THREAD_UP_TO = 100_000


@dataclass(frozen=True)
class FoldedFeatures:
    """Labelled features, sorted by fold, so that those of a fold are read without copying them.

    Attributes:
        views: the features that a head sees, float32 ``(N, …)`` per view that logits are the mean over.
        labels: int64 ``(N,)``.
        folds: the fold of each image, ``(N,)``, ascending; -1: it is trained on in all.
        count: the number of folds.
        classes: the number of classes.
        seed: of order and dropout.
    """

    views: tuple[Tensor, ...]
    labels: NDArray[np.int64]
    folds: NDArray[np.int64]
    count: int
    classes: int
    seed: int

    def __len__(self) -> int:
        """Returns the number of images."""
        return len(self.labels)

    def images_of(self, fold: int) -> slice:
        """Returns where the images of a fold are."""
        first, end = np.searchsorted(self.folds, [fold, fold + 1])
        return slice(int(first), int(end))


def out_of_fold_logits(
    head: nn.Module, data: FoldedFeatures, training: TrainingSpec, loss: Loss
) -> NDArray[np.float64]:
    """Predicts each image's logits ``(N, classes)`` by a head that did not see it.

    The head is trained as a run trains it in a cross-validation: of a fold, the next one chooses the best
    epoch. All folds are trained at once, on the same order of the images and the same dropout, which takes a
    fraction of the time, since both are read and drawn once. A head that fits itself does so.

    Args:
        head: with the weights that each fold starts from; it is not changed.
        data: the features.
        training: for how long and how.
        loss: what is minimised.

    Returns:
        The logits; those of images that are trained on in all folds are zero.

    Raises:
        TrainingError: a loss or logit is not finite.
    """
    if isinstance(head, SelfFittingHead):
        logits = _fit_folds(head, data, training)
    else:
        with one_thread(sum(value.numel() for value in head.parameters()) <= ONE_THREAD_UP_TO):
            logits = _Folds(head, data, training, loss).train()
    if not np.isfinite(logits).all():
        raise TrainingError("the head's logits are not finite numbers")
    return logits


def _fit_folds(head: SelfFittingHead, data: FoldedFeatures, training: TrainingSpec) -> NDArray[np.float64]:
    logits = np.zeros((len(data), data.classes))
    labels, mean = torch.from_numpy(data.labels), torch.stack(data.views).mean(0)
    for fold in range(data.count):
        train, held_out = np.flatnonzero(data.folds != fold), data.images_of(fold)
        fitted = copy.deepcopy(head)
        assert isinstance(fitted, nn.Module)
        weights = class_weights(data.labels[train], data.classes, training)[labels[train]]
        with torch.no_grad():
            fitted.eval().fit_features(mean[train], labels[train], weights)
            predicted = torch.stack([fitted(view[held_out]) for view in data.views]).mean(0)
        logits[held_out] = predicted.double().numpy()
    return logits


class _Folds:
    """Copies of a head, one per fold, that are trained together."""

    def __init__(self, head: nn.Module, data: FoldedFeatures, training: TrainingSpec, loss: Loss) -> None:
        self._data, self._training, self._loss = data, training, loss
        self._labels = torch.from_numpy(data.labels)
        self._images = [data.images_of(fold) for fold in range(data.count)]
        self._copies = nn.ModuleList(copy.deepcopy(head) for _ in range(data.count))
        self._dropout = SharedDropout(self._copies)
        chooses = training.keep == "best"
        without = [{fold, (fold + 1) % data.count} if chooses else {fold} for fold in range(data.count)]
        self._weights = torch.stack([self._image_weights(folds) for folds in without])
        self._histories = [History(monitor=training.monitor, keep=training.keep) for _ in without]

    def _image_weights(self, without: set[int]) -> Tensor:
        """Returns each image's weight in the loss of a copy that does not see some folds, ``(N,)``."""
        is_trained = ~np.isin(self._data.folds, list(without))
        of_class = class_weights(self._data.labels[is_trained], self._data.classes, self._training)
        return of_class[self._labels] * torch.from_numpy(is_trained)

    def train(self) -> NDArray[np.float64]:
        """Trains all copies; returns the logits of each one's best epoch for its held-out images."""
        training, data = self._training, self._data
        # a batch has as many images that a copy sees as a batch of a run
        trained_share = float((self._weights > 0).float().mean())
        steps = max(1, round(len(data) * trained_share / training.batch_size))
        optimizer = make_optimizer(self._copies, training.optimizer)
        schedule = make_schedule(optimizer, training.schedule, training.epochs, steps)
        best = np.zeros((len(data), data.classes))
        for epoch in range(training.epochs):
            self._copies.train()
            for step, batch in enumerate(self._batches(epoch, steps), epoch * steps):
                if schedule is not None:
                    schedule.step_update(step)
                optimizer.zero_grad()
                self._batch_loss(batch).backward()  # type: ignore[no-untyped-call]
                optimizer.step()
            if not self._validate(epoch, best):
                break
        return best

    def _batches(self, epoch: int, steps: int) -> Sequence[Tensor]:
        data = self._data
        order = np.random.default_rng(seed(data.seed, epoch, "order")).permutation(len(data))
        # of other layers that draw; torch.manual_seed would look for GPUs each time
        torch.default_generator.manual_seed(seed(data.seed, epoch, "dropout"))
        self._dropout.seed(seed(data.seed, epoch, "dropout"))
        return torch.from_numpy(order).tensor_split(steps)

    def _batch_loss(self, batch: Tensor) -> Tensor:
        """Returns the sum of the copies' mean losses, images weighed by class."""
        logits = self._dropout.outputs(self._data.views[0][batch]).float()
        losses = self._loss(logits.flatten(0, 1), self._labels[batch].repeat(len(logits)))
        weights = self._weights[:, batch]
        return (
            (losses.view_as(weights) * weights).sum(1) / weights.sum(1).clamp(min=torch.finfo().tiny)
        ).sum()

    @torch.no_grad()
    def _validate(self, epoch: int, best: NDArray[np.float64]) -> bool:
        """Adds an epoch to the histories, and the logits of new best ones to `best`.

        Returns whether a copy goes on.
        """
        training, going_on = self._training, False
        self._copies.eval()
        for fold, (copied, history) in enumerate(zip(self._copies, self._histories, strict=True)):
            if training.patience and epoch - history.best_epoch >= training.patience:
                continue
            going_on = True
            held_out, chooses = self._images[fold], self._images[(fold + 1) % len(self._images)]
            scores = _scores(self._predict(copied, chooses), self._labels[chooses])
            if history.add(EpochMetrics.of(epoch + 1, 0.0, scores, 0.0, 0.0)):
                best[held_out] = self._predict(copied, held_out).double().numpy()
        return going_on

    def _predict(self, copied: nn.Module, images: slice) -> Tensor:
        """Returns a copy's logits for these images, float32 ``(N, classes)``."""
        return torch.stack([copied(view[images]) for view in self._data.views]).mean(0).float()


def _scores(logits: Tensor, labels: Tensor) -> ValidationScores:
    correct = (logits.argmax(1) == labels).double()
    counts = torch.bincount(labels)
    recalls = torch.bincount(labels, correct) / counts
    return ValidationScores(
        float(nn.functional.cross_entropy(logits, labels)),
        float(correct.mean()),
        float(recalls[counts > 0].mean()),
    )
