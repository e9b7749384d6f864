"""Cross-validates a phase: trains it on every fold's images, and predicts those that it did not see.

Of a phase that trains a part of the backbone, every fold's result is written when it has ended, so that an
interrupted run resumes there, and a phase that starts from this one has what each fold ended with.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import torch
from numpy.typing import NDArray

from tlkit.data.folds import Folds
from tlkit.errors import RunFolderError
from tlkit.evaluation.multilabel import mean_average_precision
from tlkit.evaluation.significance import paired_gain
from tlkit.experiment.fold_files import (
    FoldOutcome,
    State,
    fold_file,
    read_finished_folds,
    read_fold,
    read_fold_state,
    write_fold,
)
from tlkit.experiment.observer import Tick
from tlkit.experiment.phase_context import PhaseContext
from tlkit.experiment.phase_feeds import (
    Images,
    check_finite,
    evaluation_feeds,
    features_of,
    predict_logits,
)
from tlkit.experiment.phase_training import fit_head, prepare_training, train_network
from tlkit.experiment.prepared_phase import PreparedPhase
from tlkit.experiment.results import Decision
from tlkit.recipe.schema import Monitor
from tlkit.runtime.devices import one_thread
from tlkit.training.checkpoint import remove_checkpoint

#: Heads are fitted to this many images faster in one thread.
ONE_THREAD_UP_TO = 500
#: Where the gain is over two standard errors on this many images, the other folds need not be trained.
ENOUGH_TESTED = 100


@dataclass
class OutOfFold:
    """Out-of-fold predictions of a phase.

    Attributes:
        positions: of the predicted images among the training images, ``(n,)``.
        logits: of each repeat, ``(repeats, n, classes)``.
        folds: number of folds that were trained.
        fold_accuracies: each fold's model's, on the images that it did not see; with several labels per
            image, mean average precision.
        epochs: the median number of epochs after which the folds' weights were kept.
        decision: whether the phase's weights are taken; None: there is nothing to decide.
    """

    positions: NDArray[np.int64]
    logits: NDArray[np.float64]
    folds: int
    fold_accuracies: tuple[float, ...] = ()
    epochs: int = 0
    decision: Decision | None = None


def cross_validate(prepared: PreparedPhase, folds: Folds, context: PhaseContext) -> OutOfFold:
    """Predicts the training images out of fold; afterwards the network is as it was before."""
    initial = copy_state(prepared)
    try:
        if prepared.trains:
            return _train_folds(prepared, folds, context)
        if prepared.fits_head:
            return _fit_folds(prepared, folds, context)
        return _predict_folds(prepared, folds, context)
    finally:
        load_copy(prepared, initial)


def _predict_folds(prepared: PreparedPhase, folds: Folds, context: PhaseContext) -> OutOfFold:
    """Predicts with a network in which nothing is trained."""
    images = context.dataset.splits.train
    feeds = evaluation_feeds(prepared, images, context.frozen_pass)
    logits = predict_logits(prepared, feeds, "training")
    outcomes = [
        FoldOutcome(logits[folds.held_out(0, fold)], 0, copy_state(prepared)) for fold in range(folds.count)
    ]
    for fold, outcome in enumerate(outcomes):
        write_fold(context, prepared.phase.name, fold, outcome)
    return _join(folds, context.dataset.labels_of(images), outcomes)


def _fit_folds(prepared: PreparedPhase, folds: Folds, context: PhaseContext) -> OutOfFold:
    """Cross-validates a head that fits itself: seconds, once there are features."""
    images, classes = context.dataset.splits.train, len(context.dataset.classes)
    labels, name, start = context.dataset.labels_of(images), prepared.phase.name, prepared.phase.start_from
    # what another phase's folds ended with is known for the first draw alone
    repeats = folds.repeats if start is None else 1
    tested = np.flatnonzero((folds.assignment[:repeats] >= 0).any(0))
    logits = np.zeros((repeats, len(images), classes))
    accuracies: list[float] = []
    views = features_of(prepared, images, context.frozen_pass) if start is None else []
    head, small = prepared.network.classifier.head, len(images) <= ONE_THREAD_UP_TO
    task, total = f"cross-validating {name}", repeats * folds.count
    with context.observer.progress(task, total, "folds") as tick, one_thread(small):
        for repeat, fold in product(range(repeats), range(folds.count)):
            started: State = {}
            if start is not None:
                started = _load_start(prepared, context, start, fold)
                views = features_of(prepared, images, context.frozen_pass)
            train, held_out = folds.trained_on(repeat, fold), folds.held_out(repeat, fold)
            fit_head(prepared, [features[train] for features in views], labels[train], classes)
            with torch.no_grad():
                predicted = torch.stack([head(features[held_out]) for features in views]).mean(0)
            check_finite(prepared, predicted, "held-out")
            logits[repeat, held_out] = predicted.cpu().double().numpy()
            accuracies.append(_accuracy(logits[repeat, held_out], labels[held_out]))
            if repeat == 0:
                outcome = FoldOutcome(logits[repeat, held_out], 0, {**started, **copy_state(prepared)})
                write_fold(context, name, fold, outcome)
            tick(1)
    return OutOfFold(tested, logits[:, tested], folds.count, tuple(accuracies))


def _train_folds(prepared: PreparedPhase, folds: Folds, context: PhaseContext) -> OutOfFold:
    """Cross-validates a phase that is trained by gradient steps, on the first draw of the folds.

    It ends early where the folds so far say that its weights will not be taken, or when time is up.
    """
    images, phase = context.dataset.splits.train, prepared.phase
    initial, classes = copy_state(prepared), len(context.dataset.classes)
    labels = context.dataset.labels_of(images)
    comparison = _Comparison(prepared, folds, labels)
    outcomes = read_finished_folds(context, phase.name, folds, classes)
    size = phase.training.epochs * len(images) * (folds.count - 1) // folds.count
    began, task = time.monotonic(), f"cross-validating {phase.name}"
    done, resumed = len(outcomes) * size, len(outcomes)
    with context.observer.progress(task, folds.count * size, "images", done) as tick:
        for fold in range(folds.count):
            if fold == len(outcomes):
                load_copy(prepared, initial)
                started: State = {}
                if phase.start_from is not None:
                    started = _load_start(prepared, context, phase.start_from, fold)
                outcomes.append(_train_fold(prepared, folds, fold, started, context, tick))
                write_fold(context, phase.name, fold, outcomes[-1])
            if phase.start_from is None:
                continue
            before = read_fold(context, phase.start_from, fold, len(outcomes[fold].logits), classes)
            trained = max(1, fold + 1 - resumed)
            per_fold = (time.monotonic() - began) / trained
            if comparison.ends_with(before.logits, outcomes[fold].logits, per_fold, context.seconds_left):
                break
    joined = _join(folds, labels, outcomes[: fold + 1])
    joined.decision = comparison.decision() if phase.start_from is not None else None
    return joined


class _Comparison:
    """The folds so far, against those of the phase that this one starts from."""

    def __init__(self, prepared: PreparedPhase, folds: Folds, labels: NDArray[np.int64]) -> None:
        monitor = prepared.phase.training.monitor
        # average precision is no mean over images
        self._measure: Monitor = "loss" if monitor == "mean_average_precision" else monitor
        self._folds = folds
        self._labels = labels
        self._before: list[NDArray[np.float64]] = []
        self._after: list[NDArray[np.float64]] = []
        self._enough = False
        self._reason: str | None = None

    def ends_with(
        self, before: NDArray[np.float64], after: NDArray[np.float64], seconds: float, left: float
    ) -> bool:
        """Adds a fold's logits; returns whether the other folds need not be trained."""
        self._before.append(before)
        self._after.append(after)
        done, count = len(self._after), self._folds.count
        if done == count:
            return False
        gain, error = self._gain()
        if gain < -error or (2 * done >= count and gain <= 0):
            self._reason = f"given up after {done} of {count} folds"
        elif gain > 2 * error and sum(map(len, self._after)) >= ENOUGH_TESTED:
            self._enough = True
            return True
        elif seconds * (count + 1 - done) > left:  # the other folds, and the training on all images
            self._reason = f"the time limit ended it after {done} of {count} folds"
        return self._reason is not None

    def decision(self) -> Decision:
        """Returns what the folds so far say."""
        gain, error = self._gain()
        return Decision(
            taken=self._enough or (gain > error and self._reason is None),
            measure=self._measure,
            gain=gain,
            standard_error=error,
            n=sum(map(len, self._after)),
            reason=self._reason or (f"{len(self._after)} folds were enough" if self._enough else None),
        )

    def _gain(self) -> tuple[float, float]:
        """Returns the mean gain per image and its standard error."""
        labels = np.concatenate(
            [self._labels[self._folds.held_out(0, fold)] for fold in range(len(self._after))]
        )
        return paired_gain(np.concatenate(self._before), np.concatenate(self._after), labels, self._measure)


def _train_fold(
    prepared: PreparedPhase, folds: Folds, fold: int, started: State, context: PhaseContext, tick: Tick
) -> FoldOutcome:
    images, training = context.dataset.splits.train, prepared.phase.training
    # the next fold chooses the best epoch; no choice sees the images that are predicted
    chosen_by = (fold + 1) % folds.count
    validates = training.keep == "best"
    train = folds.trained_on(0, fold, *([chosen_by] if validates else []))
    checkpoint = fold_file(context, prepared.phase.name, fold).with_suffix("")
    history = train_network(
        prepared,
        context,
        _at(images, train),
        _at(images, folds.held_out(0, chosen_by)) if validates else (),
        part=("fold", fold),
        checkpoint=checkpoint,
        epoch_ended=lambda _: False,
        start_progress=lambda _: tick,
    )
    feeds = evaluation_feeds(prepared, _at(images, folds.held_out(0, fold)), context.frozen_pass)
    logits = predict_logits(prepared, feeds, "held-out")
    if context.folder.writes:
        remove_checkpoint(checkpoint)
    return FoldOutcome(logits, history.best_epoch, {**started, **copy_state(prepared)})


def _join(folds: Folds, labels: NDArray[np.int64], outcomes: Sequence[FoldOutcome]) -> OutOfFold:
    """Joins the folds' predictions, in the order of the images."""
    positions = np.concatenate([folds.held_out(0, fold) for fold in range(len(outcomes))])
    order = np.argsort(positions)
    logits = np.concatenate([outcome.logits for outcome in outcomes])[order]
    accuracies = [
        _accuracy(outcome.logits, labels[folds.held_out(0, fold)]) for fold, outcome in enumerate(outcomes)
    ]
    epochs = int(np.median([outcome.epochs for outcome in outcomes]))
    return OutOfFold(positions[order], logits[None], len(outcomes), tuple(accuracies), epochs)


def _accuracy(logits: NDArray[np.float64], labels: NDArray[np.int64]) -> float:
    if labels.ndim == 2:
        return mean_average_precision(logits, labels)
    return float((logits.argmax(1) == labels).mean()) if len(labels) else 0.0


def _at(images: Images, positions: NDArray[np.int64]) -> Images:
    return tuple(images[position] for position in positions)


def copy_state(prepared: PreparedPhase) -> State:
    """Copies the weights that this phase changes, and the head's."""
    return {
        name: value.detach().cpu().clone()
        for name, value in prepared.network.classifier.state_dict().items()
        if name in prepared.updated or name.startswith("head.")
    }


def load_copy(prepared: PreparedPhase, state: State) -> None:
    """Loads what `copy_state` has copied, or what a fold ended with."""
    prepared.network.classifier.load_state_dict(state, strict=False)
    prepared.network.refresh()


def _load_start(prepared: PreparedPhase, context: PhaseContext, start: str, fold: int) -> State:
    """Loads what a fold of the phase that this one starts from ended with, and returns it."""
    started = read_fold_state(context, start, fold)
    try:
        prepared.network.classifier.load_state_dict(started, strict=False)
    except RuntimeError as error:
        raise RunFolderError(f"{fold_file(context, start, fold)} is not of this network: {error}") from error
    prepare_training(prepared)
    context.frozen_pass.run([prepared])
    return started
