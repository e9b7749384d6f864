"""A phase that is ready to run: its network, divided at its frontier, and what it needs to be cached."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from tlkit.data.dataset import Dataset
from tlkit.data.images import Image
from tlkit.data.views import View
from tlkit.experiment.results import ParameterCounts
from tlkit.features.extraction import FeatureRequest, bytes_per_view
from tlkit.model.classifier import Classifier
from tlkit.model.partition import Partition, PartitionedClassifier, partition
from tlkit.parts.backbone import Backbone
from tlkit.recipe.recipe import Phase
from tlkit.runtime.devices import CPU, ComputeConfig

#: Features of test and of unlabelled images are cached up to this many bytes each per phase.
SMALL = 256 * 2**20


@dataclass
class PreparedPhase:
    """A phase with its network, ready to run.

    Attributes:
        phase: the recipe's row.
        backbone: the backbone as it was made.
        network: the classifier, partitioned at its frontier; on the CPU outside of `on_device`.
        updates_statistics: whether batch norms behind the frontier update their running statistics.
        trainable: names of the trainable parameters.
        updated: names of everything that training may change: trainable parameters, and buffers of batch
            norms that update their statistics.
        compute: where and how precisely it trains.
        plain: the view for validation and test.
        views: the views that training uses in turn; for "fresh", one that is drawn anew each epoch.
    """

    phase: Phase
    backbone: Backbone
    network: Partition
    updates_statistics: bool
    trainable: set[str]
    updated: set[str]
    compute: ComputeConfig
    plain: View
    views: tuple[View, ...]

    @property
    def evaluation(self) -> ComputeConfig:
        """Where and how precisely the trained classifier is evaluated."""
        return self.compute.for_evaluation()

    @property
    def caches_features(self) -> bool:
        """Whether features of validation images are cached, which training reads each epoch."""
        return self.phase.cache_features and bool(self.network.boundaries)

    @property
    def caches_training(self) -> bool:
        """Whether features of training images are cached."""
        return self.caches_features and self.phase.views != "fresh"

    @property
    def trains(self) -> bool:
        """Whether there is anything to train."""
        return bool(self.trainable) and self.phase.training.epochs > 0

    @property
    def why_not_cached(self) -> str | None:
        """Why features of training images are not cached, or None if they are."""
        if not self.phase.cache_features:
            return "features.cache is false"
        if self.network.fallback_reason is not None:
            return self.network.fallback_reason
        return "views are drawn afresh each epoch" if self.phase.views == "fresh" else None

    @contextmanager
    def on_device(self) -> Iterator[None]:
        """Moves the network to its device, and back to the CPU afterwards; may be nested.

        Phases are prepared on the CPU, so that not all of their networks have to fit on a GPU: only those
        that share a frozen pass are there together.
        """
        device, on_cpu = self.compute.device, self.network
        parameters = on_cpu.classifier.parameters()
        if device == CPU or next(parameters, torch.empty(0)).device == device:
            yield
            return
        # graphs contain devices and tensors of the one that they were traced on
        on_cpu.classifier.to(device)
        self.network = partition_for(
            on_cpu.classifier, self.trainable, self.plain.preprocess.size, self.updates_statistics
        )
        try:
            yield
        finally:
            on_cpu.classifier.to(CPU)
            on_cpu.refresh()
            self.network = on_cpu

    def bytes_per_view(self) -> int:
        """Returns the size of one image view's cached features."""
        return bytes_per_view(self.network, self.compute if self.trains else self.evaluation)

    def caches_small(self, images: Sequence[Image]) -> bool:
        """Returns whether features of images that are evaluated are cached: when they are small."""
        size = bytes_per_view(self.network, self.evaluation) * len(images)
        return self.caches_features and 0 < size <= SMALL

    def cached_views(self, dataset: Dataset) -> int:
        """Returns how many views of training and validation images are cached."""
        trains, val = self.trains, dataset.splits.val
        views = len(val) if self.caches_features and (trains or self.caches_small(val)) else 0
        if trains and self.caches_training:
            views += len(dataset.splits.train) * len(self.views)
        return views

    def requests(self, dataset: Dataset, compute: ComputeConfig) -> list[FeatureRequest]:
        """Returns the features that this phase needs to be cached, of those computed as `compute` says."""
        if not self.caches_features or not isinstance(self.network, PartitionedClassifier):
            return []
        network, splits = self.network, dataset.splits

        def request(view: View, images: tuple[Image, ...], part: str) -> FeatureRequest:
            return FeatureRequest(network, view, images, (self.phase.name, part))

        requests = []
        if compute == self.compute and self.trains:
            if self.caches_training:
                requests += [request(view, splits.train, "train") for view in self.views]
            requests.append(request(self.plain, splits.val, "val"))
        if compute == self.evaluation:
            # validation images in another precision than training's do not count as its features
            val = "val" if compute == self.compute or not self.trains else "evaluation"
            evaluated = {val: splits.val, "test": splits.test, "unlabelled": dataset.unlabelled}
            requests += [
                request(self.plain, images, part)
                for part, images in evaluated.items()
                if self.caches_small(images)
            ]
        return requests

    def feature_bytes(self, dataset: Dataset) -> int:
        """Returns the size of the cached features of training, validation and test images."""
        size = self.cached_views(dataset) * self.bytes_per_view()
        again = self.trains and self.compute != self.evaluation
        for images in (dataset.splits.test, dataset.splits.val if again else ()):
            if self.caches_small(images):
                size += len(images) * bytes_per_view(self.network, self.evaluation)
        return size

    def parameter_counts(self) -> ParameterCounts:
        """Returns the numbers of trainable and frozen parameters."""
        classifier = self.network.classifier
        trainable = classifier.count(self.trainable)
        total = sum(value.numel() for value in classifier.parameters())
        return ParameterCounts(trainable=trainable, frozen=total - trainable)


def partition_for(classifier: Classifier, trainable: set[str], size: int, updates: bool) -> Partition:
    """Partitions a classifier of images of that size, on the device that it is on."""
    device = next(classifier.parameters(), torch.empty(0)).device
    example = torch.zeros(1, 3, size, size, device=device)
    return partition(classifier, trainable, example, update_statistics=updates)
