"""A small network, images in memory and a phase's training, for tests of the training loop."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from networks import REGISTRY, partitioned, tiny
from torch import Tensor, nn

from tlkit.data.feed import Indices, batch_indices
from tlkit.model.classifier import Classifier
from tlkit.model.partition import Partition
from tlkit.recipe.schema import PartSpec, TrainingSpec
from tlkit.runtime.devices import ComputeConfig
from tlkit.training.loop import TrainingInputs

COMPUTE = ComputeConfig(torch.device("cpu"), torch.float32)
LOSS = REGISTRY.make("loss", "cross-entropy", {}, ["a", "b"], [1, 1])


class TensorFeed:
    """Images that are in memory."""

    def __init__(self, images: Tensor) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def batches(self, order: Indices, size: int, epoch: int) -> Iterator[tuple[Indices, tuple[Tensor, ...]]]:
        for indices in batch_indices(order, size):
            yield indices, (self.images[torch.from_numpy(indices)],)


def make_network() -> Partition:
    torch.manual_seed(0)
    base = tiny(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()), size=8)
    classifier = Classifier(base, REGISTRY.make("head", "linear", {}, base, ["a", "b"]))
    return partitioned(classifier, "nothing", size=8)[0]


def make_inputs(count: int = 24, *, starts_trained: bool = False) -> TrainingInputs:
    """Returns images of two classes that differ in brightness."""
    labels = np.arange(count) % 2
    images = torch.randn(count, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    images += torch.from_numpy(labels).view(-1, 1, 1, 1)
    feed = TensorFeed(images)
    return TrainingInputs("head", feed, labels, feed, labels, 2, ("test",), LOSS, starts_trained)


def make_training(**changes: object) -> TrainingSpec:
    return TrainingSpec(
        **{"epochs": 8, "batch_size": 8, "optimizer": PartSpec(name="sgd", options={"lr": 0.05}), **changes}
    )
