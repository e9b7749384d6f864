"""Runs one phase: trains it and predicts with it; then writes what came of it."""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tlkit.data.folds import Folds
from tlkit.evaluation.calibration import fit_temperature, probabilities
from tlkit.evaluation.intervals import independent_images
from tlkit.evaluation.metrics import Scores, TestScores, evaluate, summary
from tlkit.evaluation.multilabel import label_probabilities
from tlkit.experiment.estimate import estimate_phase
from tlkit.experiment.fold_files import copy_folds
from tlkit.experiment.folds import OutOfFold, cross_validate
from tlkit.experiment.log import time_of_phase
from tlkit.experiment.multilabel import CrossValidated, MultilabelResult, PredictedPart, score_parts
from tlkit.experiment.phase_context import PhaseContext
from tlkit.experiment.phase_feeds import (
    Images,
    evaluated_images,
    evaluation_feeds,
    features_of,
    predict_logits,
)
from tlkit.experiment.phase_training import fit_head, load_start, prepare_training, train_phase
from tlkit.experiment.prepared_phase import PreparedPhase
from tlkit.experiment.results import (
    Decision,
    OutOfFoldScores,
    PhaseResult,
    PhaseSeconds,
    UnknownThreshold,
)
from tlkit.experiment.run_folder import SplitProbabilities
from tlkit.experiment.unknown import FittedDetector, fit_unknown
from tlkit.model.description import Calibration
from tlkit.model.saving import save_model
from tlkit.model.unknown import UnknownDetector
from tlkit.runtime.distributed import broadcast_from_main, process_state
from tlkit.training.history import COLUMNS, History
from tlkit.utils.atomic_write import atomic_write
from tlkit.utils.formatting import format_duration


@dataclass(frozen=True)
class SplitLogits:
    """Logits for the images of one part.

    Attributes:
        images: the images.
        labels: theirs; None: they have none.
        repeats: logits of each repeat, ``(repeats, N, classes)``; one, but for out-of-fold predictions.
    """

    images: Images
    labels: NDArray[np.int64] | None
    repeats: NDArray[np.float64]

    def probabilities(self, temperature: float) -> NDArray[np.float64]:
        """Returns the mean probabilities over the repeats, ``(N, classes)``."""
        result: NDArray[np.float64] = np.mean(
            [probabilities(logits, temperature) for logits in self.repeats], axis=0
        )
        return result

    def temperature(self) -> float:
        """Returns the temperature that suits these images' labels best."""
        assert self.labels is not None
        labels = np.tile(self.labels, len(self.repeats))
        return fit_temperature(self.repeats.reshape(len(labels), -1), labels)


@dataclass(frozen=True)
class PhaseEvaluation:
    """How good a phase's classifier is, computed as `tlkit.load` predicts with its model folder.

    Attributes:
        temperature: fitted on the validation images, or on out-of-fold predictions.
        val: scores on the validation images, or None.
        test: scores on the test images, or None.
        out_of_fold: scores of out-of-fold predictions, or None.
        probabilities: calibrated, by part; None: the weights of the phase that it starts from were kept, and
            so are its predictions.
        multilabel: scores where an image may have several labels, in place of the others; or None.
    """

    temperature: float
    val: Scores | None
    test: TestScores | None
    out_of_fold: OutOfFoldScores | None
    probabilities: tuple[SplitProbabilities, ...] | None
    multilabel: MultilabelResult | None = None


@dataclass(frozen=True)
class PhaseOutcome:
    """What comes of a phase, besides its trained network.

    Attributes:
        result: its entry in results.json.
        history: its epochs.
        evaluation: its classifier's scores and probabilities.
        unknown: tells which images belong to none of the classes; None: nothing does, or the model of the
            phase that it starts from is taken.
    """

    result: PhaseResult
    history: History
    evaluation: PhaseEvaluation
    unknown: UnknownDetector | None


@dataclass(frozen=True)
class _Trained:
    """How a phase's network came to its weights; `kept`: they are those that it starts from."""

    history: History
    kept: bool
    out_of_fold: OutOfFold | None
    decision: Decision | None
    fitted: str | None = None


def run_phase(prepared: PreparedPhase, context: PhaseContext) -> PhaseOutcome:
    """Trains one phase, and predicts with it; writes nothing but events, folds and its checkpoint."""
    name, began, frozen_pass = prepared.phase.name, time.perf_counter(), context.frozen_pass
    # features that were computed for several phases before this one began
    shared_pass = frozen_pass.seconds.get(name, 0.0)
    with prepared.on_device():
        trained = _train(prepared, context)
        ended_training = time.perf_counter()
        evaluation = _kept_evaluation(prepared, trained, context) or _evaluate(prepared, trained, context)
        taken = trained.decision is None or trained.decision.taken
        # with several labels, an image of none of the classes is a valid one
        detects = context.dataset.task == "multiclass"
        fitted = fit_unknown(prepared, context) if taken and detects else None
    ended = time.perf_counter()
    earlier = time_of_phase(context.earlier, name)
    own_pass = frozen_pass.seconds.get(name, 0.0) - shared_pass
    result = PhaseResult(
        name=name,
        epochs=len(trained.history.epochs),
        best_epoch=trained.history.best_epoch,
        monitor=trained.history.monitor,
        best_value=trained.history.best_value,
        stopped=context.run.stopping,
        parameters=prepared.parameter_counts(),
        weights=prepared.backbone.weights_origin,
        features=frozen_pass.feature_use(prepared),
        seconds=PhaseSeconds(
            total=round(ended - began + shared_pass + earlier.features + earlier.training, 3),
            features=round(shared_pass + own_pass + earlier.features, 3),
            training=round(max(0.0, ended_training - began - own_pass) + earlier.training, 3),
            evaluation=round(ended - ended_training, 3),
        ),
        temperature=evaluation.temperature,
        val=evaluation.val,
        test=evaluation.test,
        out_of_fold=evaluation.out_of_fold,
        decision=trained.decision,
        fitted=trained.fitted,
        unknown=_unknown_threshold(prepared, context, fitted) if detects else None,
        multilabel=evaluation.multilabel,
    )
    return PhaseOutcome(result, trained.history, evaluation, fitted.detector if fitted else None)


def _unknown_threshold(
    prepared: PreparedPhase, context: PhaseContext, fitted: FittedDetector | None
) -> UnknownThreshold | None:
    """Returns the phase's threshold for unknown images; the earlier phase's if its model was kept."""
    return fitted.threshold if fitted else _earlier(prepared, context).unknown


def write_phase(prepared: PreparedPhase, outcome: PhaseOutcome, context: PhaseContext) -> None:
    """Writes a phase's history, predictions and model; other processes wait for the main one."""
    phase, folder, classes = prepared.phase, context.folder, context.dataset.classes
    if prepared.trains:
        folder.write_history(phase.name, outcome.history.epochs, COLUMNS[context.dataset.task])
    predictions, decision = outcome.evaluation.probabilities, outcome.result.decision
    if folder.writes and decision is not None and not decision.taken:
        # a head that has fitted itself may have another form than the network here
        assert phase.start_from is not None
        with atomic_write(folder.model(phase.name)) as temporary:
            shutil.copytree(folder.model(phase.start_from), temporary)
    elif folder.writes:
        save_model(
            folder.model(phase.name),
            prepared.network.classifier,
            prepared.backbone,
            # the weights are in the folder; the file they came from may not be where it is used
            backbone_table={
                **phase.backbone.table(),
                **context.registry.without_weights(phase.backbone.name),
            },
            head_table=phase.head.table(),
            classes=classes,
            calibration=Calibration(
                temperature=outcome.result.temperature,
                reject_below=context.run.recipe.reject_below,
                mirror=phase.training.mirror,
                thresholds=outcome.result.multilabel.thresholds if outcome.result.multilabel else None,
            ),
            unknown=outcome.unknown,
            plugins=context.registry.plugins_of(
                (prepared.backbone.blueprint or {}).get("name", phase.backbone.name), phase.head.name
            ),
        )
    if predictions is None:
        assert phase.start_from is not None
        folder.copy_predictions(phase.start_from, phase.name)
    else:
        folder.write_predictions(phase.name, classes, predictions)
    process_state().wait_for_everyone()


def _train(prepared: PreparedPhase, context: PhaseContext) -> _Trained:
    """Trains the phase, if it has anything to train, after a cross-validation, if there are folds."""
    phase, folds = prepared.phase, context.dataset.folds
    history = History(monitor=phase.training.monitor)
    out_of_fold = decision = None
    if (reason := _why_not_tried(prepared, context)) is not None:
        decision = Decision(
            taken=False, measure=history.monitor, gain=None, standard_error=None, n=0, reason=reason
        )
    elif folds is not None:
        out_of_fold = cross_validate(prepared, folds, context)
        decision = out_of_fold.decision
    if decision is not None and not decision.taken:
        assert phase.start_from is not None
        load_start(prepared, context.folder)
        copy_folds(context, phase.start_from, phase.name)
        return _Trained(history, True, None, decision)
    if phase.start_from is not None:
        load_start(prepared, context.folder)
        prepare_training(prepared)
        context.frozen_pass.run([prepared])
    fitted = None
    if prepared.fits_head:
        images, classes = context.dataset.splits.train, len(context.dataset.classes)
        views = features_of(prepared, images, context.frozen_pass)
        fitted = fit_head(prepared, views, context.dataset.labels_of(images), classes)
        prepared.network.refresh()
    elif prepared.trains:
        history = train_phase(prepared, context, last_epoch=out_of_fold.epochs if out_of_fold else None)
    kept = phase.start_from is not None and not prepared.fits_head and not history.best_epoch
    if kept:
        # gradient steps began with the linear form of a head that may have fitted itself in another one
        load_start(prepared, context.folder)
    return _Trained(history, kept, out_of_fold, decision, fitted)


def _why_not_tried(prepared: PreparedPhase, context: PhaseContext) -> str | None:
    """Returns why a phase that starts from another one is not worth trying, as all processes agree on."""
    if prepared.phase.start_from is None or not prepared.trains:
        return None
    reason = context.skip(prepared.phase, context.run.results) or _why_no_time(prepared, context)
    return broadcast_from_main(reason)


def _why_no_time(prepared: PreparedPhase, context: PhaseContext) -> str | None:
    """Returns why the time limit leaves no time to try a phase, or None."""
    if context.deadline is None:
        return None
    if context.seconds_left <= 0:
        return "the time limit was reached"
    if not context.folder.writes:
        return None  # the main process measures, and decides for all
    # the first fold tells whether the others are worth it; then all images are trained on
    trainings = 2 if context.dataset.folds else 1
    estimate = estimate_phase(prepared, context.dataset.splits.train, context.frozen_pass.store)
    seconds, left = trainings * estimate.seconds, context.seconds_left
    if seconds <= left:
        return None
    at_least = "at least " if context.dataset.folds else ""
    return (
        f"it would take {at_least}about {format_duration(seconds)}, and the time limit leaves "
        f"{format_duration(max(0.0, left))}"
    )


def _kept_evaluation(
    prepared: PreparedPhase, trained: _Trained, context: PhaseContext
) -> PhaseEvaluation | None:
    """Returns the evaluation of the phase that this one starts from, if it kept all of its weights.

    The same classifier has the same scores: computed again, from another frontier, they could differ.
    """
    start = prepared.phase.start_from
    if start is None or not trained.kept:
        return None
    before = context.run.recipe.phase(start)
    as_before = before.preprocess == prepared.phase.preprocess
    as_before &= before.training.mirror == prepared.phase.training.mirror
    if trained.decision is None and not as_before:
        return None
    earlier = _earlier(prepared, context)
    return PhaseEvaluation(
        earlier.temperature, earlier.val, earlier.test, earlier.out_of_fold, None, earlier.multilabel
    )


def _earlier(prepared: PreparedPhase, context: PhaseContext) -> PhaseResult:
    """Returns the result of the phase that this one starts from."""
    start = prepared.phase.start_from
    earlier = context.run.results.phase(start) if start else None
    assert earlier is not None  # its weights were loaded
    return earlier


def _evaluate(prepared: PreparedPhase, trained: _Trained, context: PhaseContext) -> PhaseEvaluation:
    """Predicts validation, test and unlabelled images, and computes the scores."""
    logits = _predict_parts(prepared, trained.out_of_fold, context)
    if context.dataset.task == "multilabel":
        return _evaluate_labels(logits, trained.out_of_fold, context)
    temperature = logits["out-of-fold" if trained.out_of_fold else "val"].temperature()
    calibrated = {part: split.probabilities(temperature) for part, split in logits.items()}
    labels = {part: split.labels for part, split in logits.items() if split.labels is not None}
    out_of_fold = None
    if trained.out_of_fold is not None:
        assert context.dataset.folds is not None
        out_of_fold = _out_of_fold_scores(
            trained.out_of_fold, calibrated["out-of-fold"], labels["out-of-fold"], context.dataset.folds
        )
    return PhaseEvaluation(
        temperature,
        summary(calibrated["val"], labels["val"]) if "val" in labels else None,
        evaluate(calibrated["test"], labels["test"]) if "test" in labels else None,
        out_of_fold,
        tuple(SplitProbabilities(part, logits[part].images, values) for part, values in calibrated.items()),
    )


def _predict_parts(
    prepared: PreparedPhase, out_of_fold: OutOfFold | None, context: PhaseContext
) -> dict[str, SplitLogits]:
    """Returns the logits of validation, test and unlabelled images, with those that there are out of fold."""
    dataset = context.dataset
    parts = {part: images for part, images in evaluated_images(dataset).items() if images}
    total = len(prepared.evaluated_views) * sum(map(len, parts.values()))
    logits: dict[str, SplitLogits] = {}
    if out_of_fold is not None:
        images = tuple(dataset.splits.train[position] for position in out_of_fold.positions)
        logits["out-of-fold"] = SplitLogits(images, dataset.labels_of(images), out_of_fold.logits)
    with context.observer.progress(f"evaluating {prepared.phase.name}", total, "images") as tick:
        for part, images in parts.items():
            feeds = evaluation_feeds(prepared, images, context.frozen_pass)
            labels = None if part == "unlabelled" else dataset.labels_of(images)
            predicted = predict_logits(prepared, feeds, part, tick)
            logits[part] = SplitLogits(images, labels, predicted[None])
    return logits


def _evaluate_labels(
    logits: dict[str, SplitLogits], out_of_fold: OutOfFold | None, context: PhaseContext
) -> PhaseEvaluation:
    """Computes the scores where an image may have several labels."""
    dataset, validated = context.dataset, None
    probabilities = {part: label_probabilities(split.repeats).mean(0) for part, split in logits.items()}
    if out_of_fold is not None:
        assert dataset.folds is not None
        fold_of = dataset.folds.assignment[0, out_of_fold.positions]
        validated = CrossValidated(dataset.folds, out_of_fold.folds, len(out_of_fold.logits), fold_of)
    parts = {
        part: PredictedPart(probabilities[part], split.labels)
        for part, split in logits.items()
        if split.labels is not None
    }
    result, thresholds, answers = score_parts(parts, dataset.classes, validated)
    predicted = []
    for part, split in logits.items():
        part_answers = answers if part == "out-of-fold" else probabilities[part] >= thresholds
        predicted.append(SplitProbabilities(part, split.images, probabilities[part], part_answers))
    return PhaseEvaluation(1.0, None, None, None, tuple(predicted), result)


def _out_of_fold_scores(
    predicted: OutOfFold, calibrated: NDArray[np.float64], labels: NDArray[np.int64], folds: Folds
) -> OutOfFoldScores:
    repeats = len(predicted.logits)
    scores = evaluate(calibrated, labels, independent=independent_images(len(labels)))
    return OutOfFoldScores(
        **scores.model_dump(),
        folds=predicted.folds,
        repeats=repeats,
        fold_accuracies=predicted.fold_accuracies,
        untested=folds.untested,
    )
