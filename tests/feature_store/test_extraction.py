"""The frozen pass: several networks' boundaries together, each image once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from networks import REGISTRY, backbone, classifier, partitioned, tiny
from PIL import Image as PillowImage
from torch import Tensor, nn

from tlkit.data import images as images_module
from tlkit.data.images import Image, read_image
from tlkit.data.inspection import inspect_images
from tlkit.data.loader import load_batches
from tlkit.data.views import View, ViewReader
from tlkit.feature_store import executor as executor_module
from tlkit.feature_store.executor import PrefixExecutor, Targets, batch_size
from tlkit.feature_store.extraction import (
    FeatureRequest,
    bytes_per_view,
    column_key,
    extract_features,
    plan_extraction,
)
from tlkit.feature_store.store import FeatureStore
from tlkit.model.classifier import Classifier
from tlkit.model.partition import Boundary, PartitionedClassifier
from tlkit.parts.source import Sample
from tlkit.runtime.devices import ComputeConfig

COMPUTE = ComputeConfig(torch.device("cpu"), torch.float32)


@pytest.fixture
def images(photos: Path) -> tuple[Image, ...]:
    samples = [Sample(f"cat.{number}.jpg", photos / f"cat.{number}.jpg", 0) for number in range(1, 41)]
    return tuple(inspect_images(samples, threads=2)[0])


def partition_network(
    whole: Classifier, policy: str, size: int = 64, **options: object
) -> PartitionedClassifier:
    network, _ = partitioned(whole, policy, size=size, **options)
    assert isinstance(network, PartitionedClassifier)
    return network


def partition_module(module: nn.Module) -> PartitionedClassifier:
    """Returns a classifier around a module for images of 32 pixels, partitioned behind the module."""
    base = tiny(module)
    whole = Classifier(base, REGISTRY.make("head", "linear", {}, base, ["a", "b"]))
    return partition_network(whole, "backbone", size=32)


def two_depths(kind: str) -> tuple[PartitionedClassifier, PartitionedClassifier]:
    """Returns the same network partitioned behind its backbone and in front of its last block."""
    deep = partition_network(classifier(kind), "backbone")
    return deep, partition_network(classifier(kind), "all-but-last-blocks", blocks=1)


def targets(*networks: PartitionedClassifier) -> Targets:
    return {
        boundary.fingerprint: (network, boundary) for network in networks for boundary in network.boundaries
    }


def load_features(store: FeatureStore, boundary: Boundary, view: View, images: Sequence[Image]) -> Tensor:
    """Returns the cached features of the images, ``(N, k, …)``."""
    column = store.column(column_key(boundary, view, COMPUTE))
    return column.rows([image.sha256 for image in images]).take(np.arange(len(images)))


def load_pixels(images: Sequence[Image], view: View) -> Tensor:
    """Returns all images in one view, ``(N, 3, H, W)``."""
    ((_, batch),) = load_batches(ViewReader(), images, [view] * len(images), [np.arange(len(images))])
    return batch


@pytest.mark.parametrize("kind", [pytest.param("plain", marks=pytest.mark.slow), "residual", "transformer"])
def test_two_depths_are_computed_correctly_in_one_pass(kind: str, images: tuple[Image, ...]) -> None:
    deep, shallow = two_depths(kind)
    view, store, reader = View(backbone(kind).preprocess), FeatureStore(), ViewReader()
    requests = [
        FeatureRequest(deep, view, images, ("deep", "train")),
        FeatureRequest(shallow, view, images, ("shallow", "train")),
    ]
    jobs = plan_extraction(requests, store, COMPUTE)
    assert [len(job.images) for job in jobs] == [40]
    assert extract_features(jobs, store, COMPUTE, reader) == {("deep", "train"): 40}
    assert plan_extraction(requests, store, COMPUTE) == []
    batch = load_pixels(images, view)
    for network in (deep, shallow):
        for boundary, expected in zip(network.boundaries, network.prefix(batch), strict=True):
            features = load_features(store, boundary, view, images)
            torch.testing.assert_close(features.flatten(0, 1), expected, rtol=1e-4, atol=1e-5)


def test_steps_that_networks_share_are_computed_once() -> None:
    deep, shallow = two_depths("plain")
    both = PrefixExecutor(targets(deep, shallow), COMPUTE)
    assert len(both._steps) == len(PrefixExecutor(targets(deep), COMPUTE)._steps)


def test_after_ten_images_are_added_ten_are_computed(images: tuple[Image, ...]) -> None:
    network = partition_network(classifier("plain"), "backbone")
    view, store, reader = View(backbone("plain").preprocess), FeatureStore(), ViewReader()
    jobs = plan_extraction([FeatureRequest(network, view, images[:30], ("a", "train"))], store, COMPUTE)
    extract_features(jobs, store, COMPUTE, reader)
    jobs = plan_extraction([FeatureRequest(network, view, images, ("b", "train"))], store, COMPUTE)
    assert extract_features(jobs, store, COMPUTE, reader) == {("b", "train"): 10}


def test_features_do_not_depend_on_the_number_of_other_images(images: tuple[Image, ...]) -> None:
    """A run that was killed and resumed must end with the same numbers as one that was not."""
    network = partition_network(classifier("residual"), "backbone")
    view, reader = View(backbone("residual").preprocess), ViewReader()
    features = []
    for parts in ([images], [images[:7], images[7:]]):
        store = FeatureStore(Path(f"{FeatureStore().folder}{len(parts)}"))
        for part in parts:
            request = FeatureRequest(network, view, part, ("a", "train"))
            extract_features(plan_extraction([request], store, COMPUTE), store, COMPUTE, reader)
        features.append(load_features(store, network.boundaries[0], view, images))
    assert torch.equal(*features)


def test_each_precision_and_view_has_a_column_of_its_own() -> None:
    network = partition_network(classifier("plain"), "backbone")
    preprocess = backbone("plain").preprocess
    low = ComputeConfig(torch.device("cpu"), torch.bfloat16)
    views = [
        View(preprocess),
        View(preprocess.override({"resize": "squash"})),
        View(preprocess, object(), (1,), "a"),
        View(preprocess, object(), (2,), "a"),
        View(preprocess, object(), (1,), "b"),
    ]
    keys = {column_key(network.boundaries[0], view, compute) for view in views for compute in (COMPUTE, low)}
    assert len(keys) == 10
    assert bytes_per_view(network, COMPUTE) == 2 * bytes_per_view(network, low)


class ConvolutionAndActivation(nn.Module):
    """A convolution, then an activation that may overwrite the convolution's output."""

    def __init__(self, activation: nn.Module) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.activation = nn.Conv2d(3, 4, 3), activation

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.activation(self.conv(images))
        return result


def test_an_in_place_operation_of_one_network_does_not_change_another() -> None:
    networks = [
        partition_module(ConvolutionAndActivation(activation))
        for activation in (nn.ReLU(inplace=True), nn.Sigmoid())
    ]
    images = torch.randn(32, 3, 32, 32)
    expected = [network.prefix(images)[0].clone() for network in networks]
    executor = PrefixExecutor(targets(*networks), COMPUTE)
    # the convolution and the image are shared
    assert len(executor._steps) == 4
    features = executor.run(images)
    for network, value in zip(networks, expected, strict=True):
        torch.testing.assert_close(features[network.boundaries[0].fingerprint], value)


def test_an_image_is_decoded_once_for_all_its_views(
    images: tuple[Image, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    network = partition_network(classifier("plain"), "backbone")
    preprocess = backbone("plain").preprocess
    augmentation = REGISTRY.make("augmentation", "standard", {}, preprocess)
    views = [
        View(preprocess),
        *(View(preprocess, augmentation, (number,), "standard") for number in (1, 2, 3)),
    ]
    store, owner = FeatureStore(), ("a", "train")
    requests = [FeatureRequest(network, view, images, owner) for view in views]
    jobs = plan_extraction(requests, store, COMPUTE)
    assert [len(job) for job in jobs] == [160]
    decoded: list[Path] = []

    def read(path: Path, sha256: str) -> PillowImage.Image:
        decoded.append(path)
        return read_image(path, sha256)

    monkeypatch.setattr(images_module, "read_image", read)
    assert extract_features(jobs, store, COMPUTE, ViewReader()) == {owner: 160}
    # an image at the end of one batch may go on in the next; 32 is a multiple of 4
    assert sorted(decoded) == sorted(image.sample.path for image in images)
    for view in views:
        expected = network.prefix(load_pixels(images, view))[0]
        features = load_features(store, network.boundaries[0], view, images)
        torch.testing.assert_close(features.flatten(0, 1), expected, rtol=1e-4, atol=1e-5)


def test_a_batch_is_as_large_as_memory_allows(
    images: tuple[Image, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    network = partition_network(classifier("residual"), "backbone")
    view, boundary = View(backbone("residual").preprocess), network.boundaries[0]
    executor = PrefixExecutor(targets(network), COMPUTE)
    # the peak: two maps of 64 channels at half the size, in front of the pooling
    peak_of_two, largest = executor.footprint(torch.zeros(2, 3, 64, 64))
    assert largest == 2 * 64 * 32 * 32
    assert 4 * largest <= peak_of_two <= 3 * 4 * largest
    peak = peak_of_two // 2
    assert batch_size(executor, 64, COMPUTE.device) == 32
    features = []
    for number, room in enumerate((32, 5)):
        monkeypatch.setattr(executor_module, "total_memory", lambda _, room=room: 4 * room * peak)
        assert batch_size(executor, 64, COMPUTE.device) == (32 if room == 32 else 4)
        store = FeatureStore(Path(f"{FeatureStore().folder}{number}"))
        jobs = plan_extraction([FeatureRequest(network, view, images, ("a", "train"))], store, COMPUTE)
        extract_features(jobs, store, COMPUTE, ViewReader())
        features.append(load_features(store, boundary, view, images))
    torch.testing.assert_close(*features, rtol=1e-4, atol=1e-5)


def test_no_tensor_of_a_batch_has_too_many_elements(monkeypatch: pytest.MonkeyPatch) -> None:
    executor = PrefixExecutor(targets(partition_network(classifier("residual"), "backbone")), COMPUTE)
    monkeypatch.setattr(executor_module, "MAX_ELEMENTS", 9 * 64 * 32 * 32)
    assert batch_size(executor, 64, COMPUTE.device) == 8


class Squeezing(nn.Module):
    """Squeezes a batch of one image away."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.last = nn.Conv2d(3, 4, 3), nn.BatchNorm1d(4), nn.Linear(4, 4)

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.last(self.norm(self.conv(images).mean((2, 3), keepdim=True).squeeze()))
        return features


def test_the_batch_size_is_not_measured_on_a_single_image() -> None:
    executor = PrefixExecutor(targets(partition_module(Squeezing())), COMPUTE)
    assert batch_size(executor, 32, COMPUTE.device) == 32
