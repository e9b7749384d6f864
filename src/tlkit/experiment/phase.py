"""Runs one phase: trains it and predicts with it; then writes what came of it."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tlkit.data.dataset import Dataset
from tlkit.data.feed import Feed
from tlkit.data.images import Image
from tlkit.data.views import View
from tlkit.evaluation.calibration import fit_temperature, probabilities
from tlkit.evaluation.metrics import evaluate, summary
from tlkit.experiment.frozen_pass import FrozenPass
from tlkit.experiment.log import EpochEnded
from tlkit.experiment.observer import Events, Observer, Run, Tick
from tlkit.experiment.planning import PreparedPhase
from tlkit.experiment.results import PhaseResult, PhaseSeconds
from tlkit.experiment.run_folder import RunFolder, SplitProbabilities
from tlkit.features.extraction import column_key
from tlkit.features.feeds import CachedFeed, ImageFeed
from tlkit.features.store import Rows
from tlkit.model.saving import Calibration, load_state, read_state, save_model
from tlkit.plugins.registry import Registry
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
class PhaseOutcome:
    """What comes of a phase, besides its trained network.

    Attributes:
        result: its entry in results.json.
        history: its epochs.
        probabilities: calibrated, ``(N, classes)``, of validation, test and unlabelled images.
    """

    result: PhaseResult
    history: History
    probabilities: dict[str, NDArray[np.float64]]


def run_phase(prepared: PreparedPhase, context: PhaseContext) -> PhaseOutcome:
    """Trains one phase, and predicts with it; writes nothing but events and its checkpoint."""
    name, began = prepared.phase.name, time.perf_counter()
    frozen_pass, splits = context.frozen_pass, context.dataset.splits
    # part of a pass that was made for several phases before this one began
    shared_pass = frozen_pass.seconds.get(name, 0.0)
    with prepared.on_device():
        if prepared.phase.start_from is not None:
            load_start(prepared, context.folder)
            frozen_pass.run([prepared])
        extracted = time.perf_counter()
        feeds = make_feeds(prepared, context.dataset, frozen_pass, context.run.recipe.seed)
        fed = time.perf_counter()
        history = _train(prepared, feeds, context)
        trained = time.perf_counter()
        logits = _predict(prepared, feeds, context)
    temperature = fit_temperature(logits["val"], labels_of(splits.val))
    calibrated = {part: probabilities(values, temperature) for part, values in logits.items()}
    val = summary(calibrated["val"], labels_of(splits.val))
    test = evaluate(calibrated["test"], labels_of(splits.test))
    ended = time.perf_counter()
    result = PhaseResult(
        name=name,
        epochs=len(history.epochs),
        best_epoch=history.best_epoch,
        stopped=context.run.stopping,
        parameters=prepared.parameter_counts(),
        features=frozen_pass.feature_use(prepared),
        seconds=PhaseSeconds(
            total=round(ended - began + shared_pass, 3),
            features=round(frozen_pass.seconds.get(name, 0.0) + fed - extracted, 3),
            training=round(trained - fed, 3),
            evaluation=round(ended - trained, 3),
        ),
        temperature=temperature,
        val=val,
        test=test,
    )
    return PhaseOutcome(result, history, calibrated)


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
    images = {"val": dataset.splits.val, "test": dataset.splits.test, "unlabelled": dataset.unlabelled}
    rows = [SplitProbabilities(part, images[part], values) for part, values in outcome.probabilities.items()]
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


def make_feeds(
    prepared: PreparedPhase, dataset: Dataset, frozen_pass: FrozenPass, recipe_seed: int
) -> dict[str, Feed]:
    """Returns the phase's feeds: `val`, `test`, `unlabelled`, and `train` where it trains."""
    splits, unlabelled = dataset.splits, dataset.unlabelled
    network, compute = prepared.network, prepared.compute
    feeds: dict[str, Feed] = {}
    for name, images, cached in (
        ("val", splits.val, prepared.caches_features),
        ("test", splits.test, prepared.caches_small(splits.test)),
        ("unlabelled", unlabelled, prepared.caches_small(unlabelled)),
    ):
        offsets = [0] * len(images)
        if cached:
            rows = [_rows(prepared, prepared.plain, images, frozen_pass)]
            feeds[name] = CachedFeed(rows, offsets, network, compute)
        else:
            # validation images are read again each epoch, the others once
            again = name == "val" and prepared.trains
            views = [prepared.plain]
            feeds[name] = ImageFeed(
                frozen_pass.reader, images, views, offsets, network, compute, remember=again
            )
    if prepared.trains:
        feeds["train"] = _training_feed(prepared, splits.train, frozen_pass, recipe_seed)
    return feeds


def _training_feed(
    prepared: PreparedPhase, images: Sequence[Image], frozen_pass: FrozenPass, recipe_seed: int
) -> Feed:
    network, compute, views = prepared.network, prepared.compute, prepared.views
    generator = np.random.default_rng(seed(recipe_seed, prepared.phase.name, "views"))
    offsets = generator.integers(len(views), size=len(images)).tolist()
    if prepared.caches_training:
        rows = [_rows(prepared, view, images, frozen_pass) for view in views]
        return CachedFeed(rows, offsets, network, compute)
    fresh = prepared.phase.views == "fresh"
    return ImageFeed(frozen_pass.reader, images, views, offsets, network, compute, remember=True, fresh=fresh)


def _rows(
    prepared: PreparedPhase, view: View, images: Sequence[Image], frozen_pass: FrozenPass
) -> list[Rows]:
    names = [image.sha256 for image in images]
    return [
        frozen_pass.store.column(column_key(boundary, view, prepared.compute)).rows(names)
        for boundary in prepared.network.boundaries
    ]


def _train(prepared: PreparedPhase, feeds: Mapping[str, Feed], context: PhaseContext) -> History:
    """Trains the phase if it has anything to train."""
    phase, folder, run, splits = prepared.phase, context.folder, context.run, context.dataset.splits
    if not prepared.trains:
        return History()

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
    with context.observer.progress(f"training {phase.name}", steps, "images") as tick:
        checkpoint = folder.checkpoint(phase.name)
        return train(
            prepared.network,
            inputs,
            phase.training,
            prepared.compute,
            checkpoint,
            epoch_ended,
            tick,
            note=context.observer.note,
        )


def _predict(
    prepared: PreparedPhase, feeds: Mapping[str, Feed], context: PhaseContext
) -> dict[str, NDArray[np.float64]]:
    """Returns the logits of validation, test and unlabelled images."""
    parts = [part for part in ("val", "test", "unlabelled") if len(feeds[part])]
    total = sum(len(feeds[part]) for part in parts)
    with context.observer.progress(f"evaluating {prepared.phase.name}", total, "images") as tick:
        return {part: compute_logits(prepared, feeds[part], tick) for part in parts}


def compute_logits(prepared: PreparedPhase, feed: Feed, tick: Tick) -> NDArray[np.float64]:
    """Returns the network's logits of a feed's images: ``(N, classes)``."""
    batch_size = prepared.phase.training.batch_size
    logits = predict(prepared.network, feed, batch_size, prepared.compute, tick)
    result: NDArray[np.float64] = logits.double().numpy()
    return result
