"""The training loop: one phase, from its first epoch or its checkpoint to its best weights."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from accelerate.utils import reduce
from numpy.typing import NDArray
from torch import Tensor, nn

from tlkit.data.feed import Feed, Indices, batch_indices
from tlkit.errors import RunFolderError, TrainingError
from tlkit.evaluation.metrics import balanced_accuracy
from tlkit.evaluation.multilabel import mean_average_precision
from tlkit.model.partition import Partition
from tlkit.parts.loss import Loss
from tlkit.recipe.schema import TrainingSpec
from tlkit.runtime.devices import ComputeConfig
from tlkit.runtime.distributed import broadcast_from_main, process_state
from tlkit.training.averaging import WeightAverage
from tlkit.training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from tlkit.training.history import EpochMetrics, History, ValidationScores
from tlkit.training.mixing import MeanLoss, Mixer, mixed_loss
from tlkit.training.optimizers import make_optimizer, make_schedule
from tlkit.training.packing import State
from tlkit.utils.hashing import seed

if TYPE_CHECKING:
    from timm.scheduler.scheduler import Scheduler

Tick = Callable[[int], object]

#: Seconds between two checkpoints.
SAVE_EVERY = 20.0


@dataclass(frozen=True)
class TrainingInputs:
    """What a phase is trained and validated on.

    Attributes:
        phase: its name.
        train: the training images.
        train_labels: int64 ``(N,)``; with several labels per image, 0 or 1 for each class, ``(N, classes)``.
        val: the validation images, which determine the best epoch; None: the last epoch's weights are kept.
        val_labels: the same of the validation images.
        classes: the number of classes.
        seed: what order and dropout are seeded from, besides the epoch.
        loss: what is minimised.
        starts_trained: whether the phase starts from weights that an earlier phase trained: they are kept
            unless an epoch is better.
        last_epoch: the number of epochs after which to end, with the schedule of all; None: after all.
    """

    phase: str
    train: Feed
    train_labels: NDArray[np.int64]
    val: Feed | None
    val_labels: NDArray[np.int64]
    classes: int
    seed: tuple[object, ...]
    loss: Loss
    starts_trained: bool = False
    last_epoch: int | None = None

    @property
    def compares(self) -> bool:
        """Whether the weights that the phase starts from are compared with those of its epochs."""
        return self.starts_trained and self.val is not None


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
    method = _make_method(network, inputs, training)
    checkpoint = _resume(checkpoint_folder, network, method, inputs.phase, note)
    if checkpoint is None:
        checkpoint = _first_checkpoint(network, inputs, training)
    history, saved_at = checkpoint.history, time.monotonic()
    tick = start_progress(len(history.epochs) * len(inputs.train))
    if inputs.compares and training.keep == "best" and history.start is None:
        history.start = _validate_start(network, inputs, training, compute)
    train_epoch = _make_epoch(network, method, inputs, training, compute, tick)
    end = training.epochs if inputs.last_epoch is None else min(inputs.last_epoch, training.epochs)
    for epoch in range(len(history.epochs), end):
        if training.patience and epoch - history.best_epoch >= training.patience:
            break
        began = time.perf_counter()
        loss, accuracy = train_epoch(epoch)
        with method.average.applied() if method.average else nullcontext():
            scores = validate(network, inputs, training, compute)
            val_loss = scores.loss if scores else 0.0
            _check_finite(f"phase {inputs.phase!r}, epoch {epoch + 1}", training=loss, validation=val_loss)
            seconds = time.perf_counter() - began
            metrics = EpochMetrics.of(epoch + 1, loss, scores, method.rate, seconds, accuracy)
            if history.add(metrics):
                checkpoint.best = trained_state(network)
        is_due = time.monotonic() - saved_at > SAVE_EVERY and epoch + 1 < end
        if is_due and process_state().is_main_process:
            save_checkpoint(checkpoint_folder, checkpoint, network, method.optimizer, method.average)
            saved_at = time.monotonic()
        if epoch_ended(metrics):
            break
    network.load_state_dict(checkpoint.best, strict=False)
    network.eval()
    return history


@dataclass(frozen=True)
class _Method:
    """What changes the weights, step by step.

    Attributes:
        optimizer: changes them.
        schedule: sets the optimiser's learning rates; None: they are constant.
        average: follows the weights; None: it is not asked for.
        batch_size: number of images per step in this process.
        steps: number of steps per epoch.
    """

    optimizer: torch.optim.Optimizer
    schedule: Scheduler | None
    average: WeightAverage | None
    batch_size: int
    steps: int

    @property
    def rate(self) -> float:
        """The highest learning rate of the parameters."""
        return max(float(group["lr"]) for group in self.optimizer.param_groups)


def _make_method(network: Partition, inputs: TrainingInputs, training: TrainingSpec) -> _Method:
    processes = process_state().num_processes
    batch_size = max(1, training.batch_size // processes)
    images = -(-len(inputs.train) // processes)
    steps = len(batch_indices(np.arange(images), batch_size))
    optimizer = make_optimizer(network, training.optimizer)
    return _Method(
        optimizer,
        make_schedule(optimizer, training.schedule, training.epochs, steps),
        WeightAverage(network, training.ema) if training.ema else None,
        batch_size,
        steps,
    )


def _resume(
    folder: Path, network: Partition, method: _Method, phase: str, note: Callable[[str], object]
) -> Checkpoint | None:
    """Restores an interrupted phase; returns None without a checkpoint that can be used."""
    try:
        return load_checkpoint(folder, network, method.optimizer, trained_state(network), method.average)
    except RunFolderError as error:
        if process_state().is_main_process:
            note(f"phase {phase!r} starts again, because its checkpoint cannot be used: {error}")
        return None


def _first_checkpoint(network: Partition, inputs: TrainingInputs, training: TrainingSpec) -> Checkpoint:
    """Returns the phase as it is before its first epoch."""
    keep = training.keep if inputs.val is not None else "last"
    return Checkpoint(trained_state(network), History(monitor=training.monitor, keep=keep))


def _validate_start(
    network: Partition, inputs: TrainingInputs, training: TrainingSpec, compute: ComputeConfig
) -> ValidationScores:
    """Returns the scores of the weights that the phase starts from."""
    scores = validate(network, inputs, training, compute)
    assert scores is not None  # there are validation images
    _check_finite(f"phase {inputs.phase!r}, before its first epoch", validation=scores.loss)
    return scores


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
    method: _Method,
    inputs: TrainingInputs,
    training: TrainingSpec,
    compute: ComputeConfig,
    tick: Tick,
) -> Callable[[int], tuple[float, float | None]]:
    """Returns a function that trains one epoch.

    It returns the mean loss, images weighed by class, and the accuracy in training mode: None where images
    are mixed or may have several classes.
    """
    labels = torch.from_numpy(inputs.train_labels).to(compute.device)
    weights = class_weights(inputs.train_labels, inputs.classes, training).to(compute.device)
    mean_loss = _weighted_mean(inputs.loss, weights)
    model, stepper = _distribute(network, method.optimizer)
    parameters = [value for value in network.parameters() if value.requires_grad]
    processes = process_state().num_processes

    has_accuracy = labels.ndim == 1 and not training.mixup and not training.cutmix

    def train_epoch(epoch: int) -> tuple[float, float | None]:
        network.train()
        order, mixer = _seed_epoch(inputs, epoch), Mixer(training, _mixing_generator(inputs, epoch))
        ordered_labels = labels[torch.from_numpy(order).to(compute.device)]
        ordered_weights = image_weights(ordered_labels, weights)
        total, done = torch.zeros((), device=compute.device), 0
        predicted: list[Tensor] = []
        batches = inputs.train.batches(order, method.batch_size, epoch)
        for step, (indices, crossing) in enumerate(batches, epoch * method.steps):
            if method.schedule is not None:
                method.schedule.step_update(step)
            mixed, own = mixer.mix(crossing, len(indices))
            with compute.autocast():
                logits = model(*mixed)
            batch = slice(done, done + len(indices))
            loss = mixed_loss(mean_loss, logits.float(), ordered_labels[batch], own)
            stepper.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            if training.clip_grad:
                nn.utils.clip_grad_norm_(parameters, training.clip_grad)
            stepper.step()
            if method.average is not None:
                method.average.update(step + 1)
            # a batch's loss is a mean, weighed by class; no step waits for a copy from the device
            total += loss.detach() * ordered_weights[batch].sum()
            done += len(indices)
            if has_accuracy:
                predicted.append(logits.argmax(1))
            tick(len(indices) * processes)
        mean = float(reduce(total, "mean")) / float(reduce(ordered_weights.sum(), "mean"))
        if not has_accuracy:
            return mean, None
        correct = (torch.cat(predicted) == ordered_labels).float().mean()
        return mean, float(reduce(correct, "mean"))

    return train_epoch


def _weighted_mean(loss: Loss, weights: Tensor) -> MeanLoss:
    """Returns a function of logits and labels: the mean loss, images weighed by class."""
    of_image = loss.to(weights.device) if isinstance(loss, nn.Module) else loss

    def mean_loss(logits: Tensor, labels: Tensor) -> Tensor:
        of_label = image_weights(labels, weights)
        return (of_image(logits, labels) * of_label).sum() / of_label.sum()

    return mean_loss


def validate(
    network: Partition, inputs: TrainingInputs, training: TrainingSpec, compute: ComputeConfig
) -> ValidationScores | None:
    """Returns the scores on the validation images, as the main process computes them; None: there are none.

    They determine the best epoch and the last one, on which all processes must agree.
    """
    if inputs.val is None:
        return None
    logits = predict(network, inputs.val, training.batch_size, compute)
    labels = torch.from_numpy(inputs.val_labels)
    if labels.ndim == 2:
        loss = nn.functional.binary_cross_entropy_with_logits(logits, labels.float())
        precision = mean_average_precision(logits.numpy(), inputs.val_labels)
        return broadcast_from_main(ValidationScores(float(loss), None, None, precision))
    loss = nn.functional.cross_entropy(logits, labels)
    predicted = logits.argmax(1)
    accuracy = float((predicted == labels).float().mean())
    balanced = balanced_accuracy(predicted.numpy(), inputs.val_labels)
    return broadcast_from_main(ValidationScores(float(loss), accuracy, balanced))


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


def class_weights(labels: NDArray[np.int64], classes: int, training: TrainingSpec) -> Tensor:
    """Returns each class's weight in the loss: 1, or for "balanced" the mean class size over its own size."""
    if training.class_weights == "none":
        return torch.ones(classes)
    counts = torch.bincount(torch.from_numpy(labels), minlength=classes)
    return (counts.sum() / (classes * counts.clamp(min=1))).float()


def image_weights(labels: Tensor, class_weights: Tensor) -> Tensor:
    """Returns each image's weight in the loss: its class's, or 1 where an image may have several classes."""
    return class_weights[labels] if labels.ndim == 1 else class_weights.new_ones(len(labels))


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


def _mixing_generator(inputs: TrainingInputs, epoch: int) -> np.random.Generator:
    """Returns what mixup and CutMix draw from in this process and epoch."""
    rank = process_state().process_index
    return np.random.default_rng(seed(*inputs.seed, epoch, "mixing", *([rank] if rank else [])))
