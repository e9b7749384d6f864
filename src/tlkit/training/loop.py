"""The training loop: one phase, from its first epoch or where it was cut short, to its best weights."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from accelerate.utils import reduce
from numpy.typing import NDArray
from torch import Tensor, nn

from tlkit.data.feed import Feed
from tlkit.devices import Setting, processes
from tlkit.hashing import seed
from tlkit.model.frontier import Split
from tlkit.optimisation import make_optimizer, make_schedule
from tlkit.recipe_tables import Training
from tlkit.training.resuming import Progress, load_progress, save_progress

State = dict[str, Tensor]

#: Seconds between two saves of what is needed to go on.
SAVE_EVERY = 20.0


@dataclass(frozen=True)
class Lesson:
    """What a phase learns from.

    Attributes:
        train: the training images.
        train_labels: int64 ``(N,)``.
        val: the validation images, which choose the best epoch.
        val_labels: int64 ``(M,)``.
        classes: how many there are.
        seed: what order and dropout are drawn from, besides the epoch.
        from_trained: whether it starts from weights that were trained for this: they are then kept
            unless an epoch is better.
    """

    train: Feed
    train_labels: NDArray[np.int64]
    val: Feed
    val_labels: NDArray[np.int64]
    classes: int
    seed: tuple[object, ...]
    from_trained: bool = False


@dataclass
class History:
    """How a phase went.

    Attributes:
        rows: per epoch, counted from 1: `epoch`, `train_loss`, `val_loss`, `val_accuracy`, `lr`, `seconds`.
        best_epoch: the epoch whose weights were kept; 0: those it started from.
        start: `val_loss` and `val_accuracy` before the first epoch, where those weights were trained.
    """

    rows: list[dict[str, float]] = field(default_factory=list)
    best_epoch: int = 0
    start: dict[str, float] | None = None


def train(
    split: Split,
    lesson: Lesson,
    training: Training,
    setting: Setting,
    resume: Path,
    epoch_ended: Callable[[dict[str, float]], bool] = lambda _: False,
    stepped: Callable[[int], object] = lambda _: None,
) -> History:
    """Trains what lies behind the frontier and leaves the weights of the best epoch in place.

    The best epoch has the highest validation accuracy; among equals, the lowest validation loss. Weights
    that were trained in an earlier phase count as an epoch of their own, the first.

    Args:
        split: the network; its learning parameters and moving statistics are changed.
        lesson: what it learns from.
        training: for how long and how.
        setting: where and how precisely.
        resume: folder that holds what is needed to go on, while the phase lasts.
        epoch_ended: called with each epoch's row of the history; whether this is to be the last.
        stepped: called with the number of training images after each step.

    Returns:
        The history.
    """
    device = setting.device
    labels = torch.from_numpy(lesson.train_labels).to(device)
    weights = class_weights(lesson, training).to(device)
    optimizer = make_optimizer(split, training.optimizer.name, training.optimizer.options)
    planned = training.schedule
    schedule = make_schedule(optimizer, planned.name, planned.options, training.epochs) if planned else None
    progress = load_progress(resume, split, optimizer) or Progress(best=changing_state(split))
    network, stepper = _spread(split, optimizer)
    if lesson.from_trained and progress.start is None:
        progress.start = _score(predict(split, lesson.val, training.batch_size, setting), lesson.val_labels)
    history, saved = History(progress.rows, progress.best_epoch, progress.start), time.monotonic()
    for epoch in range(len(history.rows), training.epochs):
        if training.patience and epoch - history.best_epoch >= training.patience:
            break
        began = time.perf_counter()
        if schedule is not None:
            schedule.step(epoch)
        rate = optimizer.param_groups[0]["lr"]
        split.train()
        loss = _train_epoch(network, lesson, training, setting, stepper, labels, weights, epoch, stepped)
        logits = predict(split, lesson.val, training.batch_size, setting)
        row = {
            "epoch": epoch + 1,
            "train_loss": loss,
            **_score(logits, lesson.val_labels),
            "lr": float(rate),
            "seconds": time.perf_counter() - began,
        }
        history.rows.append(row)
        if _better(row, history):
            history.best_epoch = epoch + 1
            progress.best = changing_state(split)
        late = time.monotonic() - saved > SAVE_EVERY and epoch + 1 < training.epochs
        if late and processes().is_main_process:
            progress.rows, progress.best_epoch = history.rows, history.best_epoch
            save_progress(resume, progress, split, optimizer)
            saved = time.monotonic()
        if epoch_ended(row):
            break
    split.load_state_dict(progress.best, strict=False)
    split.eval()
    return history


def _spread(split: Split, optimizer: torch.optim.Optimizer) -> tuple[nn.Module, Any]:
    """Network and optimiser, for several processes such that accelerate averages their gradients."""
    if processes().num_processes == 1:
        return split, optimizer
    unused = DistributedDataParallelKwargs(find_unused_parameters=True)
    network, stepper = Accelerator(kwargs_handlers=[unused]).prepare(split, optimizer)
    return network, stepper


def _train_epoch(
    network: nn.Module,
    lesson: Lesson,
    training: Training,
    setting: Setting,
    optimizer: Any,
    labels: Tensor,
    weights: Tensor,
    epoch: int,
    stepped: Callable[[int], object],
) -> float:
    """One pass over the training images, divided among the processes; the mean loss per image."""
    order = np.random.default_rng(seed(*lesson.seed, epoch, "order")).permutation(len(lesson.train))
    together = processes()
    rank, count = together.process_index, together.num_processes
    torch.manual_seed(seed(*lesson.seed, epoch, "dropout", *([rank] if rank else [])))
    # the first images come again at the end until every process has as many
    own = np.resize(order, -(-len(order) // count) * count)[rank::count]
    wanted = labels[torch.from_numpy(own).to(setting.device)]
    total, start = torch.zeros((), device=setting.device), 0
    for places, crossing in lesson.train.batches(own, max(1, training.batch_size // count), epoch):
        with setting.autocast():
            logits = network(*crossing)
        end = start + len(places)
        loss = nn.functional.cross_entropy(logits.float(), wanted[start:end], weights)
        start = end
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        total += loss.detach() * len(places)
        stepped(len(places) * count)
    return float(reduce(total, "mean")) / len(own)


def predict(
    split: Split,
    feed: Feed,
    batch_size: int,
    setting: Setting,
    stepped: Callable[[int], object] = lambda _: None,
) -> Tensor:
    """Logits of every image of `feed`, in its order: float32 ``(N, classes)``, on the CPU."""
    split.eval()
    parts = []
    with torch.no_grad():
        for places, crossing in feed.batches(np.arange(len(feed)), batch_size, 0):
            with setting.autocast():
                parts.append(split(*crossing).float())
            stepped(len(places))
    return torch.cat(parts).cpu()


def class_weights(lesson: Lesson, training: Training) -> Tensor:
    """Each class' weight in the loss: ones, or for "balanced" the mean count over the class' own count."""
    counts = torch.bincount(torch.from_numpy(lesson.train_labels), minlength=lesson.classes)
    if training.class_weights == "none":
        return torch.ones(lesson.classes)
    return (counts.sum() / (lesson.classes * counts.clamp(min=1))).float()


def changing_state(split: Split) -> State:
    """A copy of what training may change, on the CPU: learning parameters and all buffers."""
    learning = {name for name, value in split.named_parameters() if value.requires_grad}
    buffers = {name for name, _ in split.named_buffers()}
    state = split.state_dict()
    # buffers that are not persistent are made by the network itself, and no training moves them
    return {
        name: value.detach().to("cpu", copy=True)
        for name, value in state.items()
        if name in learning or name in buffers
    }


def _score(logits: Tensor, labels: NDArray[np.int64]) -> dict[str, float]:
    wanted = torch.from_numpy(labels)
    loss = nn.functional.cross_entropy(logits, wanted)
    correct = logits.argmax(1) == wanted
    return {"val_loss": float(loss), "val_accuracy": float(correct.float().mean())}


def _better(row: dict[str, float], history: History) -> bool:
    if math.isnan(row["val_loss"]):
        return False
    best = history.rows[history.best_epoch - 1] if history.best_epoch else history.start
    if best is None:
        return True
    return (row["val_accuracy"], -row["val_loss"]) > (best["val_accuracy"], -best["val_loss"])
