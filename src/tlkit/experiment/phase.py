"""Runs one phase: trains it and predicts with it; then writes what came of it."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tlkit.data.dataset import Dataset
from tlkit.data.feed import Feed
from tlkit.data.images import Image
from tlkit.data.views import View
from tlkit.errors import TrainingError
from tlkit.evaluation.calibration import fit_temperature, probabilities
from tlkit.evaluation.metrics import Scores, TestScores, evaluate, summary
from tlkit.experiment.frozen_pass import FrozenPass
from tlkit.experiment.log import EpochEnded
from tlkit.experiment.observer import Events, Observer, Run, Tick
from tlkit.experiment.prepared_phase import PreparedPhase
from tlkit.experiment.results import PhaseResult, PhaseSeconds
from tlkit.experiment.run_folder import RunFolder, SplitProbabilities
from tlkit.features.extraction import column_key
from tlkit.features.feeds import CachedFeed, ImageFeed
from tlkit.features.store import Rows
from tlkit.model.saving import Calibration, load_state, read_state, save_model
from tlkit.plugins.registry import Registry
from tlkit.runtime.devices import ComputeConfig
from tlkit.runtime.distributed import broadcast_from_main, process_state
from tlkit.training.history import EpochMetrics, History
from tlkit.training.loop import TrainingInputs, predict, train
from tlkit.utils.hashing import seed


@dataclass(frozen=True)
class PhaseContext:
    """What the phases of a run share.

    Attributes:
        run: the run, as plugins see it.
        dataset: its images.
        folder: its folder.
        frozen_pass: computes cached features.
        events: tells plugins and the observer.
        observer: is shown progress.
        registry: all parts.
    """

    run: Run
    dataset: Dataset
    folder: RunFolder
    frozen_pass: FrozenPass
    events: Events
    observer: Observer
    registry: Registry


@dataclass(frozen=True)
class PhaseEvaluation:
    """How good a phase's classifier is, computed as `tlkit.load` predicts with its model folder.

    Attributes:
        temperature: fitted on the validation images.
        val: scores on the validation images.
        test: scores on the test images.
        probabilities: calibrated, ``(N, classes)``, of validation, test and unlabelled images; None: those of
            the phase that it starts from, whose weights were kept.
    """

    temperature: float
    val: Scores
    test: TestScores
    probabilities: dict[str, NDArray[np.float64]] | None


@dataclass(frozen=True)
class PhaseOutcome:
    """What comes of a phase, besides its trained network.

    Attributes:
        result: its entry in results.json.
        history: its epochs.
        evaluation: its classifier's scores and probabilities.
    """

    result: PhaseResult
    history: History
    evaluation: PhaseEvaluation


def run_phase(prepared: PreparedPhase, context: PhaseContext) -> PhaseOutcome:
    """Trains one phase, and predicts with it; writes nothing but events and its checkpoint."""
    name, began = prepared.phase.name, time.perf_counter()
    frozen_pass = context.frozen_pass
    # part of a pass that was made for several phases before this one began
    shared_pass = frozen_pass.seconds.get(name, 0.0)
    with prepared.on_device():
        if prepared.phase.start_from is not None:
            load_start(prepared, context.folder)
            frozen_pass.run([prepared])
        extracted = time.perf_counter()
        feeds = training_feeds(prepared, context.dataset, frozen_pass, context.run.recipe.seed)
        fed = time.perf_counter()
        history = _train(prepared, feeds, context)
        trained = time.perf_counter()
        evaluation = _kept_evaluation(prepared, history, context) or _evaluate(prepared, feeds, context)
    ended = time.perf_counter()
    result = PhaseResult(
        name=name,
        epochs=len(history.epochs),
        best_epoch=history.best_epoch,
        monitor=history.monitor,
        best_value=history.best_value,
        stopped=context.run.stopping,
        parameters=prepared.parameter_counts(),
        weights=prepared.backbone.weights_origin,
        features=frozen_pass.feature_use(prepared),
        seconds=PhaseSeconds(
            total=round(ended - began + shared_pass, 3),
            features=round(frozen_pass.seconds.get(name, 0.0) + fed - extracted, 3),
            training=round(trained - fed, 3),
            evaluation=round(ended - trained, 3),
        ),
        temperature=evaluation.temperature,
        val=evaluation.val,
        test=evaluation.test,
    )
    return PhaseOutcome(result, history, evaluation)


def write_phase(prepared: PreparedPhase, outcome: PhaseOutcome, context: PhaseContext) -> None:
    """Writes a phase's history, predictions and model; other processes wait for the main one."""
    phase, folder, dataset = prepared.phase, context.folder, context.dataset
    if prepared.trains:
        folder.write_history(phase.name, outcome.history.epochs)
    if folder.writes:
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
            classes=dataset.classes,
            calibration=Calibration(
                temperature=outcome.result.temperature, reject_below=context.run.recipe.reject_below
            ),
        )
    evaluated = outcome.evaluation.probabilities
    if evaluated is None:
        assert phase.start_from is not None
        folder.copy_predictions(phase.start_from, phase.name)
    else:
        images = evaluated_images(dataset)
        rows = [SplitProbabilities(part, images[part], values) for part, values in evaluated.items()]
        folder.write_predictions(phase.name, dataset.classes, rows)
    process_state().wait_for_everyone()


def load_start(prepared: PreparedPhase, folder: RunFolder) -> None:
    """Loads the weights of the phase that this one starts from."""
    assert prepared.phase.start_from is not None
    model = folder.model(prepared.phase.start_from)
    load_state(prepared.network.classifier, read_state(model), model)
    prepared.network.refresh()


def labels_of(images: Sequence[Image]) -> NDArray[np.int64]:
    """Returns the images' labels: int64 ``(N,)``."""
    return np.array([image.sample.label for image in images], np.int64)


def evaluated_images(dataset: Dataset) -> dict[str, tuple[Image, ...]]:
    """Returns the images that every phase is evaluated on, by part."""
    return {"val": dataset.splits.val, "test": dataset.splits.test, "unlabelled": dataset.unlabelled}


def training_feeds(
    prepared: PreparedPhase, dataset: Dataset, frozen_pass: FrozenPass, recipe_seed: int
) -> dict[str, Feed]:
    """Returns the feeds `train` and `val` that a phase trains with; none where it does not train."""
    if not prepared.trains:
        return {}
    val = dataset.splits.val
    return {
        # read again each epoch
        "val": _plain_feed(
            prepared, val, frozen_pass, prepared.compute, cached=prepared.caches_features, remember=True
        ),
        "train": _training_feed(prepared, dataset.splits.train, frozen_pass, recipe_seed),
    }


def evaluation_feed(prepared: PreparedPhase, images: tuple[Image, ...], frozen_pass: FrozenPass) -> Feed:
    """Returns the feed that a trained phase is evaluated with on these images."""
    cached = prepared.caches_small(images)
    return _plain_feed(prepared, images, frozen_pass, prepared.evaluation, cached=cached)


def _plain_feed(
    prepared: PreparedPhase,
    images: tuple[Image, ...],
    frozen_pass: FrozenPass,
    compute: ComputeConfig,
    *,
    cached: bool,
    remember: bool = False,
) -> Feed:
    """Returns a feed of the plain view, from cached features or from the images."""
    network, offsets = prepared.network, [0] * len(images)
    if cached:
        rows = [_rows(prepared, prepared.plain, images, frozen_pass, compute)]
        return CachedFeed(rows, offsets, network, compute)
    views, reader = [prepared.plain], frozen_pass.reader
    return ImageFeed(reader, images, views, offsets, network, compute, remember=remember)


def _training_feed(
    prepared: PreparedPhase, images: Sequence[Image], frozen_pass: FrozenPass, recipe_seed: int
) -> Feed:
    network, compute, views = prepared.network, prepared.compute, prepared.views
    generator = np.random.default_rng(seed(recipe_seed, prepared.phase.name, "views"))
    offsets = generator.integers(len(views), size=len(images)).tolist()
    if prepared.caches_training:
        rows = [_rows(prepared, view, images, frozen_pass, compute) for view in views]
        return CachedFeed(rows, offsets, network, compute)
    fresh = prepared.phase.views == "fresh"
    return ImageFeed(frozen_pass.reader, images, views, offsets, network, compute, remember=True, fresh=fresh)


def _rows(
    prepared: PreparedPhase,
    view: View,
    images: Sequence[Image],
    frozen_pass: FrozenPass,
    compute: ComputeConfig,
) -> list[Rows]:
    names = [image.sha256 for image in images]
    return [
        frozen_pass.store.column(column_key(boundary, view, compute)).rows(names)
        for boundary in prepared.network.boundaries
    ]


def _train(prepared: PreparedPhase, feeds: Mapping[str, Feed], context: PhaseContext) -> History:
    """Trains the phase if it has anything to train."""
    phase, folder, run, splits = prepared.phase, context.folder, context.run, context.dataset.splits
    if not prepared.trains:
        return History(monitor=phase.training.monitor)

    def epoch_ended(metrics: EpochMetrics) -> bool:
        folder.log(EpochEnded(phase=phase.name, metrics=metrics))
        context.events.notify("tlkit_epoch_ended", run=run, phase=phase, epoch=metrics.epoch, metrics=metrics)
        run.stopping = broadcast_from_main(run.stopping)
        return run.stopping is not None

    inputs = TrainingInputs(
        phase=phase.name,
        train=feeds["train"],
        train_labels=labels_of(splits.train),
        val=feeds["val"],
        val_labels=labels_of(splits.val),
        classes=len(context.dataset.classes),
        seed=(run.recipe.seed, phase.name),
        starts_trained=phase.start_from is not None,
    )
    steps = phase.training.epochs * len(splits.train)
    with ExitStack() as opened:

        def start_progress(done: int) -> Tick:
            progress = context.observer.progress(f"training {phase.name}", steps, "images", done)
            return opened.enter_context(progress)

        return train(
            prepared.network,
            inputs,
            phase.training,
            prepared.compute,
            folder.checkpoint(phase.name),
            epoch_ended,
            start_progress,
            note=context.observer.note,
        )


def _kept_evaluation(
    prepared: PreparedPhase, history: History, context: PhaseContext
) -> PhaseEvaluation | None:
    """Returns the evaluation of the phase that this one starts from, if it kept all of its weights.

    The same classifier has the same scores: computed again, from another frontier, they could differ.
    """
    start, recipe = prepared.phase.start_from, context.run.recipe
    if start is None or history.best_epoch or recipe.phase(start).preprocess != prepared.phase.preprocess:
        return None
    earlier = context.run.results.phase(start)
    assert earlier is not None  # its weights were loaded
    return PhaseEvaluation(earlier.temperature, earlier.val, earlier.test, None)


def _evaluate(prepared: PreparedPhase, feeds: Mapping[str, Feed], context: PhaseContext) -> PhaseEvaluation:
    """Predicts validation, test and unlabelled images, and computes the scores."""
    images = {part: rows for part, rows in evaluated_images(context.dataset).items() if rows}
    total = sum(map(len, images.values()))
    logits: dict[str, NDArray[np.float64]] = {}
    with context.observer.progress(f"evaluating {prepared.phase.name}", total, "images") as tick:
        for part, rows in images.items():
            shared = feeds.get(part) if prepared.compute == prepared.evaluation else None
            feed = shared or evaluation_feed(prepared, rows, context.frozen_pass)
            batch_size = prepared.phase.training.batch_size
            outputs = predict(prepared.network, feed, batch_size, prepared.evaluation, tick)
            if not outputs.isfinite().all():
                raise TrainingError(
                    f"phase {prepared.phase.name!r}: the network's outputs for {part} images are not finite "
                    "numbers: try a smaller learning rate, or other weights"
                )
            logits[part] = outputs.double().numpy()
    labels = {part: labels_of(images[part]) for part in ("val", "test")}
    temperature = fit_temperature(logits["val"], labels["val"])
    calibrated = {part: probabilities(values, temperature) for part, values in logits.items()}
    val = summary(calibrated["val"], labels["val"])
    return PhaseEvaluation(temperature, val, evaluate(calibrated["test"], labels["test"]), calibrated)
