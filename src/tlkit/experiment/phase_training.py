"""Trains the network of a phase: by gradient steps, or by letting its head fit itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tlkit.experiment.log import EpochEnded
from tlkit.experiment.observer import Tick
from tlkit.experiment.phase_context import PhaseContext
from tlkit.experiment.phase_feeds import Images, training_feed, validation_feed
from tlkit.experiment.prepared_phase import PreparedPhase
from tlkit.experiment.run_folder import RunFolder
from tlkit.model.saving import load_state, read_state
from tlkit.parts.head import HasLinearForm, SelfFittingHead
from tlkit.runtime.devices import CPU
from tlkit.runtime.distributed import broadcast_from_main
from tlkit.training.history import EpochMetrics, History
from tlkit.training.loop import TrainingInputs, class_weights, image_weights, train

#: Up to so many images, a CPU fits a head faster than a GPU, which waits between many small kernels: a probe
#: of 180 images took 0.5 s on an H200, and 0.1 s on two cores.
FEW = 1000


def load_start(prepared: PreparedPhase, folder: RunFolder) -> None:
    """Loads the weights of the phase that this one starts from."""
    assert prepared.phase.start_from is not None
    model = folder.model(prepared.phase.start_from)
    load_state(prepared.network.classifier, read_state(model), model)
    prepared.network.refresh()


def prepare_training(prepared: PreparedPhase) -> None:
    """Prepares a network, into which weights were loaded, for gradient steps, which train a linear head."""
    head = prepared.network.classifier.head
    if prepared.trains and isinstance(head, HasLinearForm):
        head.use_linear_form()
    prepared.network.refresh()


def train_phase(prepared: PreparedPhase, context: PhaseContext, *, last_epoch: int | None = None) -> History:
    """Trains a phase on all of its training images, by gradient steps; tells plugins of each epoch."""
    phase, folder, run = prepared.phase, context.folder, context.run

    def epoch_ended(metrics: EpochMetrics) -> bool:
        folder.log(EpochEnded(phase=phase.name, metrics=metrics))
        context.events.notify("tlkit_epoch_ended", run=run, phase=phase, epoch=metrics.epoch, metrics=metrics)
        run.stopping = broadcast_from_main(run.stopping)
        return run.stopping is not None

    splits = context.dataset.splits
    epochs = phase.training.epochs if last_epoch is None else last_epoch
    with ExitStack() as opened:

        def start_progress(done: int) -> Tick:
            total = epochs * len(splits.train)
            progress = context.observer.progress(f"training {phase.name}", total, "images", done)
            return opened.enter_context(progress)

        return train_network(
            prepared,
            context,
            splits.train,
            splits.val,
            part=(),
            checkpoint=folder.checkpoint(phase.name),
            epoch_ended=epoch_ended,
            start_progress=start_progress,
            last_epoch=last_epoch,
        )


def train_network(
    prepared: PreparedPhase,
    context: PhaseContext,
    images: Images,
    val: Images,
    *,
    part: tuple[object, ...],
    checkpoint: Path,
    epoch_ended: Callable[[EpochMetrics], bool],
    start_progress: Callable[[int], Tick],
    last_epoch: int | None = None,
) -> History:
    """Trains a phase's network on some images.

    Args:
        prepared: the phase.
        context: what it shares with others.
        images: images to train on.
        val: images to choose the best epoch by; without any, the last epoch is kept.
        part: what order and dropout are seeded from, besides the recipe's seed, the phase and the epoch.
        checkpoint: the folder of the checkpoint.
        epoch_ended: called with each epoch's metrics; returns whether this was the last epoch.
        start_progress: called with the number of images done before; returns what counts the others.
        last_epoch: the number of epochs after which to end.
    """
    phase, recipe, frozen_pass = prepared.phase, context.run.recipe, context.frozen_pass
    dataset, classes = context.dataset, context.dataset.classes
    loss = phase.training.loss
    inputs = TrainingInputs(
        phase=phase.name,
        train=training_feed(prepared, images, frozen_pass, recipe.seed),
        train_labels=dataset.labels_of(images),
        val=validation_feed(prepared, val, frozen_pass) if val else None,
        val_labels=dataset.labels_of(val),
        classes=len(classes),
        seed=(recipe.seed, phase.name, *part),
        loss=context.registry.make("loss", loss.name, loss.options, classes, dataset.count_classes(images)),
        starts_trained=phase.start_from is not None,
        last_epoch=last_epoch,
    )
    return train(
        prepared.network,
        inputs,
        phase.training,
        prepared.compute,
        checkpoint,
        epoch_ended,
        start_progress,
        note=context.observer.note,
    )


def fit_head(
    prepared: PreparedPhase, views: Sequence[Tensor], labels: NDArray[np.int64], classes: int
) -> str | None:
    """Lets the head fit itself to the mean features over the views.

    Args:
        prepared: the phase.
        views: features of the training images, ``(N, …)`` per view.
        labels: int64 ``(N,)``; with several labels per image, 0 or 1 for each class, ``(N, classes)``.
        classes: the number of classes.

    Returns:
        What the head chose, or None.
    """
    head = prepared.network.classifier.head
    assert isinstance(head, SelfFittingHead)
    features = torch.stack(list(views)).mean(0)
    device = features.device
    # on a Mac's GPU there is no float64
    fitting_device = CPU if device.type == "mps" or len(labels) <= FEW else device
    of_class = class_weights(labels, classes, prepared.phase.training)
    targets = torch.from_numpy(labels)
    head.eval().to(fitting_device)
    features, targets, weights = (
        value.to(fitting_device) for value in (features, targets, image_weights(targets, of_class))
    )
    chosen = head.fit_features(features, targets, weights)
    head.to(device)
    return chosen
