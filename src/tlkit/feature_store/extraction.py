"""The frozen pass: computes every boundary that the phases need of an image together, once, and stores it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from tlkit.data.feed import Indices
from tlkit.data.images import Image
from tlkit.data.loader import load_batches
from tlkit.data.views import View, ViewReader
from tlkit.feature_store.executor import PrefixExecutor, Targets, batch_size
from tlkit.feature_store.store import FeatureStore
from tlkit.model.partition import Boundary, Partition, PartitionedClassifier
from tlkit.parts.preprocess import Preprocess
from tlkit.runtime.devices import ComputeConfig, copy_to_cpu
from tlkit.runtime.distributed import process_state
from tlkit.utils.hashing import digest

#: To be increased when the same network computes other features than before; they are then computed again.
COMPUTING = 2

#: A phase's name and a part of the data: train, val, test or unlabelled.
RequestOwner = tuple[str, str]
#: An image's sha256 and a view's identity.
ImageView = tuple[str, str]


@dataclass(frozen=True, slots=True)
class FeatureRequest:
    """The boundaries of one network, for some images in one view.

    Attributes:
        network: the partitioned classifier.
        view: the view of the images.
        images: the images.
        owner: who asks, and for which part of the data.
    """

    network: PartitionedClassifier
    view: View
    images: tuple[Image, ...]
    owner: RequestOwner


@dataclass(frozen=True, slots=True)
class ExtractionJob:
    """Images that lack the same boundaries in the same views.

    Attributes:
        owner: who asked first.
        views: the views, which share their preprocessing.
        images: the images.
        targets: the missing boundaries.
    """

    owner: RequestOwner
    views: tuple[View, ...]
    images: tuple[Image, ...]
    targets: Targets

    def __len__(self) -> int:
        """Returns the number of image views to compute."""
        return len(self.views) * len(self.images)


def column_key(boundary: Boundary, view: View, compute: ComputeConfig) -> str:
    """Returns the key of a cached feature: the network up to the boundary, precision, preprocessing and view.

    With an image's sha256 it identifies a feature; see `tlkit.feature_store.store`.
    """
    how = compute.dtype, compute.device.type, compute.full_float32, torch.__version__
    return digest(COMPUTING, boundary.fingerprint, view.identity, *how)


def are_missing(requests: Iterable[FeatureRequest], store: FeatureStore, compute: ComputeConfig) -> bool:
    """Returns whether any of the requested features are missing from the store."""
    return any(
        store.column(column_key(boundary, request.view, compute)).missing(
            [image.sha256 for image in request.images]
        )
        for request in requests
        for boundary in request.network.boundaries
    )


def plan_extraction(
    requests: Iterable[FeatureRequest], store: FeatureStore, compute: ComputeConfig
) -> list[ExtractionJob]:
    """Determines which of the requested features are missing from the store.

    Requests that share a view share one pass over its images: each image view is in exactly one job, and
    counts for the first request that asks for it.
    """
    missing: dict[ImageView, dict[str, tuple[PartitionedClassifier, Boundary]]] = {}
    first: dict[ImageView, tuple[FeatureRequest, Image]] = {}
    for request in requests:
        by_hash = {image.sha256: image for image in request.images}
        identity = request.view.identity
        for boundary in request.network.boundaries:
            column = store.column(column_key(boundary, request.view, compute))
            target = (request.network, boundary)
            for sha256 in column.missing(list(by_hash)):
                image_view = (sha256, identity)
                missing.setdefault(image_view, {}).setdefault(boundary.fingerprint, target)
                first.setdefault(image_view, (request, by_hash[sha256]))
    return _group_into_jobs(missing, first)


def _group_into_jobs(
    missing: dict[ImageView, dict[str, tuple[PartitionedClassifier, Boundary]]],
    first: dict[ImageView, tuple[FeatureRequest, Image]],
) -> list[ExtractionJob]:
    # views of an image that lack the same boundaries go together: the image is then decoded once
    by_image: dict[tuple[RequestOwner, str, Preprocess, tuple[str, ...]], list[ImageView]] = {}
    for image_view, targets in missing.items():
        request, image = first[image_view]
        key = (request.owner, image.sha256, request.view.preprocess, tuple(sorted(targets)))
        by_image.setdefault(key, []).append(image_view)
    groups: dict[tuple[RequestOwner, tuple[str, ...], tuple[str, ...]], list[list[ImageView]]] = {}
    for (owner, _, _, fingerprints), image_views in by_image.items():
        identities = tuple(identity for _, identity in image_views)
        groups.setdefault((owner, identities, fingerprints), []).append(image_views)
    return [
        ExtractionJob(
            owner,
            tuple(first[image_view][0].view for image_view in members[0]),
            tuple(first[image_views[0]][1] for image_views in members),
            missing[members[0][0]],
        )
        for (owner, _, _), members in groups.items()
    ]


class Executors:
    """The executors of jobs, each made once for all that compute the same."""

    def __init__(self, compute: ComputeConfig) -> None:
        """Takes where and how precisely they compute."""
        self._compute = compute
        self._made: dict[tuple[frozenset[str], int], tuple[PrefixExecutor, int]] = {}

    def get(self, job: ExtractionJob) -> tuple[PrefixExecutor, int]:
        """Returns a job's executor, and how many image views it computes at once."""
        size = job.views[0].preprocess.size
        key = frozenset(job.targets), size
        if key not in self._made:
            executor = PrefixExecutor(job.targets, self._compute)
            self._made[key] = executor, batch_size(executor, size, self._compute.device)
        return self._made[key]


def extract_features(
    jobs: Iterable[ExtractionJob],
    store: FeatureStore,
    compute: ComputeConfig,
    reader: ViewReader,
    tick: Callable[[int], object] = lambda _: None,
    executors: Executors | None = None,
) -> dict[RequestOwner, int]:
    """Computes and stores the features of planned jobs; of several processes, each does its share.

    Args:
        jobs: the jobs, from `plan_extraction`.
        store: where the features are stored.
        compute: where and how precisely they are computed.
        reader: reads the images.
        tick: called after each batch with the number of image views done.
        executors: of earlier jobs of the same networks; made anew unless given.

    Returns:
        The number of image views computed for each owner.
    """
    computed: dict[RequestOwner, int] = {}
    executors = executors or Executors(compute)
    for job in jobs:
        _run_job(job, *executors.get(job), store, compute, reader, tick)
        computed[job.owner] = computed.get(job.owner, 0) + len(job)
    process_state().wait_for_everyone()
    return computed


def _run_job(
    job: ExtractionJob,
    executor: PrefixExecutor,
    batch: int,
    store: FeatureStore,
    compute: ComputeConfig,
    reader: ViewReader,
    tick: Callable[[int], object],
) -> None:
    """Computes one job's features with `batch` image views per forward pass."""
    state = process_state()
    own = job.images[state.process_index :: state.num_processes]
    # all views of an image follow each other
    images = [image for image in own for _ in job.views]
    views = [*job.views] * len(own)
    batches = [np.arange(start, min(start + batch, len(views))) for start in range(0, len(views), batch)]
    writer = _JobWriter(job, images, store, compute)
    loaded = load_batches(reader, images, views, batches, device=compute.device, pad_to=batch)
    for indices, features in copy_to_cpu((indices, executor.run(pixels)) for indices, pixels in loaded):
        writer.add(
            indices, {name: tensor.reshape(batch, -1, *tensor.shape[1:]) for name, tensor in features.items()}
        )
        tick(len(indices) * state.num_processes)
    writer.flush()


class _JobWriter:
    """Distributes a job's features over the columns of its views and boundaries."""

    def __init__(
        self, job: ExtractionJob, images: list[Image], store: FeatureStore, compute: ComputeConfig
    ) -> None:
        self._images = images
        self._writers = [
            {
                name: store.writer(column_key(boundary, view, compute), sharing=len(job.views))
                for name, (_, boundary) in job.targets.items()
            }
            for view in job.views
        ]

    def add(self, indices: Indices, features: dict[str, Tensor]) -> None:
        """Takes features ``(B, k, …)`` by boundary, the first ``len(indices)`` of them of these views."""
        for number, of_view in enumerate(self._writers):
            rows = np.flatnonzero(indices % len(self._writers) == number)
            names = [self._images[index].sha256 for index in indices[rows]]
            for name, writer in of_view.items():
                writer.add(names, features[name][torch.from_numpy(rows)])

    def flush(self) -> None:
        """Writes what is left."""
        for of_view in self._writers:
            for writer in of_view.values():
                writer.flush()


def bytes_per_view(network: Partition, compute: ComputeConfig) -> int:
    """Returns the size of one image view's cached features in bytes."""
    elements = sum(math.prod(boundary.shape) for boundary in network.boundaries)
    return elements * torch.empty(0, dtype=compute.dtype).element_size()
