"""The training loop: one phase, from its first epoch or its checkpoint to its best weights."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from accelerate.utils import reduce
from numpy.typing import NDArray
from torch import Tensor, nn

from tlkit.data.feed import Feed, Indices
from tlkit.errors import RunFolderError, TrainingError
from tlkit.model.partition import Partition
from tlkit.recipe.schema import TrainingSpec
from tlkit.runtime.devices import ComputeConfig
from tlkit.runtime.distributed import broadcast_from_main, process_state
from tlkit.training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from tlkit.training.history import EpochMetrics, History, ValidationScores
from tlkit.training.optimizers import make_optimizer, make_schedule
from tlkit.training.packing import State
from tlkit.utils.hashing import seed

Tick = Callable[[int], object]

#: Seconds between two checkpoints.
SAVE_EVERY = 20.0


@dataclass(frozen=True)
class TrainingInputs:
    """What a phase is trained and validated on.

    Attributes:
        phase: its name.
        train: the training images.
        train_labels: int64 ``(N,)``.
        val: the validation images, which determine the best epoch.
        val_labels: int64 ``(M,)``.
        classes: the number of classes.
        seed: what order and dropout are seeded from, besides the epoch.
        starts_trained: whether the phase starts from weights that an earlier phase trained: they are kept
            unless an epoch is better.
    """

    phase: str
    train: Feed
    train_labels: NDArray[np.int64]
    val: Feed
    val_labels: NDArray[np.int64]
    classes: int
    seed: tuple[object, ...]
    starts_trained: bool = False


def train(
    network: Partition,
    inputs: TrainingInputs,
    training: TrainingSpec,
    compute: ComputeConfig,
    checkpoint_folder: Path,
    epoch_ended: Callable[[EpochMetrics], bool] = lambda _: False,
    start_progress: Callable[[int], Tick] = lambda _: lambda _: None,
    note: Callable[[str], object] = lambda _: None,
) -> History:
    """Trains what is behind the frontier, and loads the weights of the best epoch at the end.

    Args:
        network: the classifier; its trainable parameters and updated statistics change.
        inputs: what it is trained and validated on.
        training: for how long and how.
        compute: where and how precisely.
        checkpoint_folder: the folder of the checkpoint, while the phase lasts.
        epoch_ended: called with each epoch's metrics; returns whether this was the last epoch.
        start_progress: called with the number of training images of the epochs that are resumed; returns a
            function to call after each step with its number of them.
        note: told where a checkpoint cannot be used, so that the phase begins again.

    Returns:
        The history.

    Raises:
        TrainingError: a loss is not finite.
    """
    optimizer = make_optimizer(network, training.optimizer)
    schedule = make_schedule(optimizer, training.schedule, training.epochs)
    checkpoint = _resume(checkpoint_folder, network, optimizer, inputs.phase, note)
    history, saved_at = checkpoint.history, time.monotonic()
    tick = start_progress(len(history.epochs) * len(inputs.train))
    if inputs.starts_trained and history.start is None:
        history.start = validate(network, inputs, training, compute)
        _check_finite(f"phase {inputs.phase!r}, before its first epoch", validation=history.start.loss)
    train_epoch = _make_epoch(network, optimizer, inputs, training, compute, tick)
    for epoch in range(len(history.epochs), training.epochs):
        if training.patience and epoch - history.best_epoch >= training.patience:
            break
        began = time.perf_counter()
        if schedule is not None:
            schedule.step(epoch)
        lr = float(optimizer.param_groups[0]["lr"])
        loss = train_epoch(epoch)
        scores = validate(network, inputs, training, compute)
        _check_finite(f"phase {inputs.phase!r}, epoch {epoch + 1}", training=loss, validation=scores.loss)
        seconds = time.perf_counter() - began
        metrics = EpochMetrics(epoch + 1, loss, scores.loss, scores.accuracy, lr, seconds)
        if history.add(metrics):
            checkpoint.best = trained_state(network)
        due = time.monotonic() - saved_at > SAVE_EVERY and epoch + 1 < training.epochs
        if due and process_state().is_main_process:
            save_checkpoint(checkpoint_folder, checkpoint, network, optimizer)
            saved_at = time.monotonic()
        if epoch_ended(metrics):
            break
    network.load_state_dict(checkpoint.best, strict=False)
    network.eval()
    return history


def _resume(
    folder: Path,
    network: Partition,
    optimizer: torch.optim.Optimizer,
    phase: str,
    note: Callable[[str], object],
) -> Checkpoint:
    """Restores an interrupted phase; without a checkpoint that can be used, returns one of its beginning."""
    beginning = trained_state(network)
    try:
        checkpoint = load_checkpoint(folder, network, optimizer, beginning)
    except RunFolderError as error:
        checkpoint = None
        if process_state().is_main_process:
            note(f"phase {phase!r} begins again, since its checkpoint cannot be used: {error}")
    return checkpoint or Checkpoint(best=beginning)


def _check_finite(when: str, **losses: float) -> None:
    """Raises TrainingError if a loss is infinite or not a number."""
    for name, loss in losses.items():
        if not math.isfinite(loss):
            raise TrainingError(
                f"{when}: the {name} loss is {loss}: try a smaller learning rate, or "
                'precision = "float32"; check the images and their labels'
            )


def _make_epoch(
    network: Partition,
    optimizer: torch.optim.Optimizer,
    inputs: TrainingInputs,
    training: TrainingSpec,
    compute: ComputeConfig,
    tick: Tick,
) -> Callable[[int], float]:
    """Returns a function that trains one epoch, and returns the mean loss, images weighed by class."""
    labels = torch.from_numpy(inputs.train_labels).to(compute.device)
    weights = class_weights(inputs, training).to(compute.device)
    loss_function = nn.CrossEntropyLoss(weights)
    model, stepper = _distribute(network, optimizer)
    processes = process_state().num_processes
    batch_size = max(1, training.batch_size // processes)

    def train_epoch(epoch: int) -> float:
        network.train()
        order = _seed_epoch(inputs, epoch)
        ordered_labels = labels[torch.from_numpy(order).to(compute.device)]
        ordered_weights = weights[ordered_labels]
        total, done = torch.zeros((), device=compute.device), 0
        for indices, crossing in inputs.train.batches(order, batch_size, epoch):
            with compute.autocast():
                logits = model(*crossing)
            batch = slice(done, done + len(indices))
            loss = loss_function(logits.float(), ordered_labels[batch])
            stepper.zero_grad()
            loss.backward()
            stepper.step()
            # a batch's loss is a mean, weighed by class; no step waits for a copy from the device
            total += loss.detach() * ordered_weights[batch].sum()
            done += len(indices)
            tick(len(indices) * processes)
        return float(reduce(total, "mean")) / float(reduce(ordered_weights.sum(), "mean"))

    return train_epoch


def validate(
    network: Partition, inputs: TrainingInputs, training: TrainingSpec, compute: ComputeConfig
) -> ValidationScores:
    """Returns loss and accuracy on the validation images, as the main process computes them.

    They determine the best epoch and the last one, on which all processes must agree.
    """
    logits = predict(network, inputs.val, training.batch_size, compute)
    labels = torch.from_numpy(inputs.val_labels)
    loss = nn.functional.cross_entropy(logits, labels)
    correct = logits.argmax(1) == labels
    return broadcast_from_main(ValidationScores(float(loss), float(correct.float().mean())))


def predict(
    network: Partition,
    feed: Feed,
    batch_size: int,
    compute: ComputeConfig,
    tick: Tick = lambda _: None,
) -> Tensor:
    """Returns the logits of every image of `feed`, in order: float32 ``(N, classes)``, on the CPU."""
    network.eval()
    batches = []
    with torch.no_grad():
        for indices, crossing in feed.batches(np.arange(len(feed)), batch_size, 0):
            with compute.autocast():
                batches.append(network(*crossing).float())
            tick(len(indices))
    return torch.cat(batches).cpu()


def class_weights(inputs: TrainingInputs, training: TrainingSpec) -> Tensor:
    """Returns each class's weight in the loss: 1, or for "balanced" the mean class size over its own size."""
    counts = torch.bincount(torch.from_numpy(inputs.train_labels), minlength=inputs.classes)
    if training.class_weights == "none":
        return torch.ones(inputs.classes)
    return (counts.sum() / (inputs.classes * counts.clamp(min=1))).float()


def trained_state(network: Partition) -> State:
    """Copies what training may change to the CPU: trainable parameters and all persistent buffers."""
    trainable = {name for name, value in network.named_parameters() if value.requires_grad}
    buffers = {name for name, _ in network.named_buffers()}
    # buffers that are not persistent are missing from state_dict, and training does not change them
    return {
        name: value.detach().to("cpu", copy=True)
        for name, value in network.state_dict().items()
        if name in trainable or name in buffers
    }


def _distribute(network: Partition, optimizer: torch.optim.Optimizer) -> tuple[nn.Module, Any]:
    """Returns network and optimiser, wrapped by accelerate if several processes average their gradients."""
    if process_state().num_processes == 1:
        return network, optimizer
    unused = DistributedDataParallelKwargs(find_unused_parameters=True)
    model, stepper = Accelerator(kwargs_handlers=[unused]).prepare(network, optimizer)
    return model, stepper


def _seed_epoch(inputs: TrainingInputs, epoch: int) -> Indices:
    """Seeds dropout, and returns this process's training images in the epoch's order."""
    state = process_state()
    rank, count = state.process_index, state.num_processes
    order = np.random.default_rng(seed(*inputs.seed, epoch, "order")).permutation(len(inputs.train))
    torch.manual_seed(seed(*inputs.seed, epoch, "dropout", *([rank] if rank else [])))
    # the first images are repeated at the end until every process has as many
    return np.resize(order, -(-len(order) // count) * count)[rank::count]
