"""What a phase's training will cost, from a short measurement on a few of its images."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from tlkit.data.batches import batches
from tlkit.data.images import Image
from tlkit.data.pixels import Pixels, View
from tlkit.features.extraction import Request, plan
from tlkit.features.store import FeatureStore
from tlkit.model.classifier import is_convolutional
from tlkit.planning import AUTO_VIEWS, Prepared

#: Images that are tried at most, and seconds after which a first try is good enough.
IMAGES, ENOUGH = 32, 2.0
Value = TypeVar("Value")


@dataclass(frozen=True)
class Estimate:
    """Seconds that a phase's training takes, frozen pass over the training images included.

    Attributes:
        keeps: whether the phase keeps features of training images: `kept` is then what it will take,
            else `fresh`.
        views: how many views of each image are kept, or would be.
        kept: with kept features; None where nothing can be kept.
        making: of those, what making the features takes that are not there yet.
        fresh: with images read in each epoch, and varied if the phase varies them.
        bytes: what the kept features of the training images take.
    """

    keeps: bool
    views: int
    kept: float | None
    making: float
    fresh: float
    bytes: int


def estimate(item: Prepared, images: Sequence[Image], store: FeatureStore) -> Estimate:
    """Measures reading, the frozen part and a step on a few images; nothing of the phase is changed."""
    count = min(IMAGES, item.phase.training.batch_size, len(images))
    few = [images[place] for place in np.linspace(0, len(images) - 1, count).astype(int)]
    pixels, device = Pixels(), item.setting.device  # what another phase remembers would be no measure
    read, tensors = _timed(lambda: _read(pixels, few, item.views, device, remember=False), device)
    read /= len(item.views)
    again, _ = _timed(lambda: _read(pixels, few, item.views[-1:], device, remember=True), device)
    frozen, crossing = _timed(lambda: _crossing(item, tensors), device)
    step, _ = _timed(lambda: _step(item, crossing), device)
    keeps = item.keeps_training
    views = len(item.views) if keeps else AUTO_VIEWS
    missing = views * len(images)
    if keeps:
        requests = [
            Request(item.split, view, tuple(images), (item.phase.name, "train")) for view in item.views
        ]
        missing = sum(len(job) for job in plan(requests, store, item.setting))
    making = missing / len(few) * (read + frozen)
    epoch = len(images) / len(few)
    trained = item.phase.training.epochs * epoch
    return Estimate(
        keeps=keeps,
        views=views,
        kept=making + trained * step if item.keeps else None,
        making=making if item.keeps else 0.0,
        fresh=epoch * read + (trained - epoch) * again + trained * (frozen + step),
        bytes=views * len(images) * item.bytes_per_view() if item.keeps else 0,
    )


def _timed(run: Callable[[], Value], device: torch.device) -> tuple[float, Value]:
    """Seconds of a second call, or of the first where that took long, and what it gave."""
    for _ in range(2):
        began = time.perf_counter()
        value = run()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        took = time.perf_counter() - began
        if took > ENOUGH:
            break
    return took, value


def _read(
    pixels: Pixels, images: Sequence[Image], views: Sequence[View], device: torch.device, *, remember: bool
) -> Tensor:
    """Reads the images in all views, and gives back a batch of as many."""
    every, seen = [image for image in images for _ in views], [*views] * len(images)
    parts = np.array_split(np.arange(len(every)), len(views))
    for _, tensors in batches(pixels, every, seen, parts, device=device, remember=remember):
        last = tensors
    return last


def _crossing(item: Prepared, images: Tensor) -> tuple[Tensor, ...]:
    with item.setting.autocast():
        crossing = item.split.prefix(images)
    if not item.split.boundaries:
        return crossing
    kept = tuple(tensor.to(item.setting.dtype) for tensor in crossing)
    if not is_convolutional(item.split.root):
        return kept
    last = torch.channels_last
    return tuple(each.contiguous(memory_format=last) if each.ndim == 4 else each for each in kept)


def _step(item: Prepared, crossing: tuple[Tensor, ...]) -> None:
    """Forward and backward, in evaluation mode: no statistics move, no dropout is drawn."""
    item.split.eval()
    with item.setting.autocast():
        logits = item.split(*crossing)
    logits.float().square().mean().backward()
    for value in item.split.parameters():
        value.grad = None
