"""A phase that is ready to run: its network, divided at its frontier, and what it needs to be cached."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch

from tlkit.data.dataset import Dataset
from tlkit.data.images import Image
from tlkit.data.views import View
from tlkit.experiment.results import ParameterCounts
from tlkit.feature_store.extraction import FeatureRequest, bytes_per_view
from tlkit.model.classifier import Classifier
from tlkit.model.partition import Partition, PartitionedClassifier, partition
from tlkit.parts.backbone import Backbone
from tlkit.parts.head import SelfFittingHead
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
    def fits_head(self) -> bool:
        """Whether the head fits itself to features: it can, and nothing of the backbone is trainable."""
        fits_itself = isinstance(self.network.classifier.head, SelfFittingHead)
        return fits_itself and not any(name.startswith("backbone.") for name in self.trainable)

    @property
    def trains(self) -> bool:
        """Whether there is anything to train by gradient steps."""
        return bool(self.trainable) and self.phase.training.epochs > 0 and not self.fits_head

    @property
    def evaluated_views(self) -> tuple[View, ...]:
        """The views that logits are the mean over, in evaluation and prediction."""
        mirrored = (replace(self.plain, mirrored=True),) if self.phase.training.mirror else ()
        return (self.plain, *mirrored)

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
        return sum(self._cached(dataset, ("train", "val")).values())

    def requests(self, dataset: Dataset, compute: ComputeConfig) -> list[FeatureRequest]:
        """Returns the features that this phase needs to be cached, of those computed as `compute` says."""
        if not self.caches_features or not isinstance(self.network, PartitionedClassifier):
            return []
        network, splits = self.network, dataset.splits
        # the same images in another precision than training's do not count as its features
        same = compute == self.compute or not self.trains
        needed: list[tuple[View, tuple[Image, ...], str]] = []
        if compute == self.compute:
            if self.trains and self.caches_training:
                needed += [(view, splits.train, "train") for view in self.views]
            if self.trains:
                validated = (
                    splits.train if dataset.folds and self.phase.training.keep == "best" else splits.val
                )
                needed.append((self.plain, validated, "val"))
            if self.fits_head:
                needed += [(view, splits.train, "train") for view in self.evaluated_views]
        if compute == self.evaluation:
            small = [
                (splits.val, "val" if same else "evaluation"),
                (splits.test, "test"),
                (dataset.unlabelled, "unlabelled"),
            ]
            if dataset.folds and not self.fits_head:
                small.append((splits.train, "train" if same else "evaluation"))
            if not self.fits_head:
                # of training with fresh views, they are no features that it reads
                reads = same and (self.caches_training or not self.trains)
                small.append((dataset.representatives, "train" if reads else "evaluation"))
            needed += [
                (view, images, part)
                for images, part in small
                for view in self.evaluated_views
                if self.caches_small(images)
            ]
        return [
            FeatureRequest(network, view, images, (self.phase.name, part)) for view, images, part in needed
        ]

    def feature_bytes(self, dataset: Dataset) -> int:
        """Returns the size of the cached features of training, validation and test images."""
        again = self._cached(dataset, ("test", "evaluation")).values()
        size = self.cached_views(dataset) * self.bytes_per_view()
        return size + sum(again) * bytes_per_view(self.network, self.evaluation)

    def _cached(self, dataset: Dataset, parts: tuple[str, ...]) -> dict[tuple[str, int], int]:
        """Returns the numbers of images of these parts that are cached, by view; each counts once."""
        return {
            (request.view.identity, id(request.images)): len(request.images)
            for compute in (self.compute, self.evaluation)
            for request in self.requests(dataset, compute)
            if request.owner[1] in parts
        }

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
