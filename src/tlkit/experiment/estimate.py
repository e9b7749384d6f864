"""Estimates how long a phase will train, from a short measurement on a few of its images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from tlkit.data.images import Image
from tlkit.data.loader import load_batches
from tlkit.data.views import View, ViewReader
from tlkit.experiment.planning import AUTO_VIEWS
from tlkit.experiment.prepared_phase import PreparedPhase
from tlkit.feature_store.extraction import FeatureRequest, plan_extraction
from tlkit.feature_store.store import FeatureStore
from tlkit.model.classifier import is_convolutional
from tlkit.model.partition import PartitionedClassifier
from tlkit.runtime.devices import gpu_settings
from tlkit.runtime.timing import timed

#: Maximum number of images to measure on.
IMAGES = 32


@dataclass(frozen=True)
class Estimate:
    """How long a phase will train, in seconds, the frozen pass over the training images included.

    Attributes:
        uses_cache: whether the phase caches features of training images: it then takes `cached`, else
            `fresh`.
        views: number of cached views per image, as it is or would be.
        cached: with cached features; None where nothing can be cached.
        extraction: the part of `cached` that computes features missing from the store.
        fresh: with images read anew each epoch, and augmented if the phase augments them.
        feature_bytes: size of the training images' cached features.
    """

    uses_cache: bool
    views: int
    cached: float | None
    extraction: float
    fresh: float
    feature_bytes: int

    @property
    def seconds(self) -> float:
        """How long the phase will train as it is."""
        return self.cached if self.uses_cache and self.cached is not None else self.fresh


def estimate_phase(prepared: PreparedPhase, images: Sequence[Image], store: FeatureStore) -> Estimate:
    """Measures reading, the prefix and a training step on a few images; the phase is not changed."""
    with gpu_settings(prepared.compute.device), prepared.on_device():
        return _measure(prepared, images, store)


def _measure(prepared: PreparedPhase, images: Sequence[Image], store: FeatureStore) -> Estimate:
    training, device = prepared.phase.training, prepared.compute.device
    count = min(IMAGES, training.batch_size, len(images))
    sample = [images[index] for index in np.linspace(0, len(images) - 1, count).astype(int)]
    reader = ViewReader()  # a new one, since images that are cached already would be no measure
    reading, batch = timed(lambda: _read(reader, sample, prepared.views, device, remember=False), device)
    reading /= len(prepared.views)
    rereading, _ = timed(lambda: _read(reader, sample, prepared.views[-1:], device, remember=True), device)
    prefix, crossing = timed(lambda: _run_prefix(prepared, batch), device)
    step, _ = timed(lambda: _run_step(prepared, crossing), device)
    uses_cache = prepared.caches_training
    views = len(prepared.views) if uses_cache else AUTO_VIEWS
    missing = _missing_views(prepared, images, store) if uses_cache else views * len(images)
    extraction = missing / len(sample) * (reading + prefix)
    epoch = len(images) / len(sample)
    steps = training.epochs * epoch
    cacheable = prepared.caches_features
    return Estimate(
        uses_cache=uses_cache,
        views=views,
        cached=extraction + steps * step if cacheable else None,
        extraction=extraction if cacheable else 0.0,
        fresh=epoch * reading + (steps - epoch) * rereading + steps * (prefix + step),
        feature_bytes=views * len(images) * prepared.bytes_per_view() if cacheable else 0,
    )


def _missing_views(prepared: PreparedPhase, images: Sequence[Image], store: FeatureStore) -> int:
    """Returns how many views of the training images are missing from the store."""
    assert isinstance(prepared.network, PartitionedClassifier)  # it caches features
    requests = [
        FeatureRequest(prepared.network, view, tuple(images), (prepared.phase.name, "train"))
        for view in prepared.views
    ]
    return sum(len(job) for job in plan_extraction(requests, store, prepared.compute))


def _read(
    reader: ViewReader,
    images: Sequence[Image],
    views: Sequence[View],
    device: torch.device,
    *,
    remember: bool,
) -> Tensor:
    """Reads the images in all views, and returns a batch of as many."""
    repeated = [image for image in images for _ in views]
    as_views = [*views] * len(images)
    batches = np.array_split(np.arange(len(repeated)), len(views))
    for _, batch in load_batches(reader, repeated, as_views, batches, device=device, remember=remember):
        last = batch
    return last


def _run_prefix(prepared: PreparedPhase, images: Tensor) -> tuple[Tensor, ...]:
    with prepared.compute.autocast():
        crossing = prepared.network.prefix(images)
    if not prepared.network.boundaries:
        return crossing
    features = tuple(tensor.to(prepared.compute.dtype) for tensor in crossing)
    if not is_convolutional(prepared.network.classifier.backbone):
        return features
    layout = torch.channels_last
    return tuple(
        tensor.contiguous(memory_format=layout) if tensor.ndim == 4 else tensor for tensor in features
    )


def _run_step(prepared: PreparedPhase, crossing: tuple[Tensor, ...]) -> None:
    """Runs forward and backward in evaluation mode: no statistics are updated, no dropout is drawn."""
    prepared.network.eval()
    with prepared.compute.autocast():
        logits = prepared.network(*crossing)
    logits.float().square().mean().backward()
    for value in prepared.network.parameters():
        value.grad = None
