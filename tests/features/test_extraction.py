"""The frozen pass: several networks' boundaries together, each image once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tlkit.data.pixels as pixels_module
import torch
from networks import KINDS, REGISTRY, backbone, classifier, divided, tiny
from torch import Tensor, nn

from tlkit.data.images import Image, inspect_images, read_image
from tlkit.data.loader import load_batches
from tlkit.data.views import View, ViewReader
from tlkit.features import extraction
from tlkit.features.executor import PrefixExecutor, batch_size
from tlkit.features.extraction import FeatureRequest, column_key, extract_features, plan_extraction
from tlkit.features.store import FeatureStore
from tlkit.model.classifier import Classifier
from tlkit.model.partition import PartitionedClassifier
from tlkit.parts.source import Sample
from tlkit.runtime.devices import ComputeConfig

SETTING = ComputeConfig(torch.device("cpu"), torch.float32)


@pytest.fixture
def images(photos: Path) -> tuple[Image, ...]:
    samples = [Sample(f"cat.{number}.jpg", photos / f"cat.{number}.jpg", 0) for number in range(1, 41)]
    return tuple(inspect_images(samples, threads=2)[0])


def two_depths(kind: str) -> tuple[PartitionedClassifier, PartitionedClassifier]:
    """The same network divided behind its backbone and in front of its last block."""
    return divided(classifier(kind), "backbone")[0], divided(
        classifier(kind), "all-but-last-blocks", blocks=1
    )[0]


@pytest.mark.parametrize("kind", KINDS)
def test_two_depths_are_made_in_one_pass_and_are_right(kind: str, images: tuple[Image, ...]) -> None:
    deep, shallow = two_depths(kind)
    view, store, pixels = View(backbone(kind).preprocess), FeatureStore(), ViewReader()
    requests = [
        FeatureRequest(deep, view, images, ("deep", "train")),
        FeatureRequest(shallow, view, images, ("shallow", "train")),
    ]
    jobs = plan_extraction(requests, store, SETTING)
    assert [len(job.images) for job in jobs] == [40]
    assert extract_features(jobs, store, SETTING, pixels) == {("deep", "train"): 40}
    assert plan_extraction(requests, store, SETTING) == []
    ((_, batch),) = load_batches(pixels, images, [view] * 40, [np.arange(40)])
    for split in (deep, shallow):
        for boundary, expected in zip(split.boundaries, split.prefix(batch), strict=True):
            rows = store.column(column_key(boundary, view, SETTING)).rows([image.sha256 for image in images])
            found = rows.take(np.arange(40)).flatten(0, 1)
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_what_networks_share_is_computed_once() -> None:
    deep, shallow = two_depths("plain")
    wanted = {split.boundaries[0].fingerprint: (split, split.boundaries[0]) for split in (deep, shallow)}
    together = len(PrefixExecutor(wanted, SETTING)._steps)
    first = deep.boundaries[0].fingerprint
    assert together == len(PrefixExecutor({first: wanted[first]}, SETTING)._steps)


def test_ten_new_images_compute_ten(images: tuple[Image, ...]) -> None:
    split, _ = divided(classifier("plain"), "backbone")
    view, store, pixels = View(backbone("plain").preprocess), FeatureStore(), ViewReader()
    extract_features(
        plan_extraction([FeatureRequest(split, view, images[:30], ("a", "train"))], store, SETTING),
        store,
        SETTING,
        pixels,
    )
    jobs = plan_extraction([FeatureRequest(split, view, images, ("b", "train"))], store, SETTING)
    assert extract_features(jobs, store, SETTING, pixels) == {("b", "train"): 10}


def test_features_do_not_depend_on_how_many_are_made_together(images: tuple[Image, ...]) -> None:
    """A run that was killed and one that was not must end with the same numbers."""
    split, _ = divided(classifier("residual"), "backbone")
    view, pixels = View(backbone("residual").preprocess), ViewReader()
    found = []
    for parts in ([images], [images[:7], images[7:]]):
        store = FeatureStore(Path(str(FeatureStore().folder) + str(len(parts))))
        for part in parts:
            extract_features(
                plan_extraction([FeatureRequest(split, view, part, ("a", "train"))], store, SETTING),
                store,
                SETTING,
                pixels,
            )
        key = column_key(split.boundaries[0], view, SETTING)
        found.append(store.column(key).rows([image.sha256 for image in images]).take(np.arange(40)))
    assert torch.equal(*found)


def test_precision_and_view_have_columns_of_their_own() -> None:
    split, _ = divided(classifier("plain"), "backbone")
    preprocess = backbone("plain").preprocess
    low = ComputeConfig(torch.device("cpu"), torch.bfloat16)
    views = [
        View(preprocess),
        View(preprocess.override({"resize": "squash"})),
        View(preprocess, object(), (1,), "a"),
    ]
    views += [View(preprocess, object(), (2,), "a"), View(preprocess, object(), (1,), "b")]
    keys = {column_key(split.boundaries[0], view, setting) for view in views for setting in (SETTING, low)}
    assert len(keys) == 10


class Shared(nn.Module):
    """A convolution, then an activation that may overwrite the convolution's output."""

    def __init__(self, activation: nn.Module) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.activation = nn.Conv2d(3, 4, 3), activation

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.activation(self.conv(images))
        return result


def test_an_in_place_operation_of_one_network_does_not_spoil_another() -> None:
    from networks import REGISTRY, tiny

    from tlkit.model.classifier import Classifier

    splits = []
    for activation in (nn.ReLU(inplace=True), nn.Sigmoid()):
        base = tiny(Shared(activation))
        made = Classifier(base, REGISTRY.make("head", "linear", {}, base, ["a", "b"]))
        splits.append(divided(made, "backbone", size=32)[0])
    images = torch.randn(32, 3, 32, 32)
    expected = [split.prefix(images)[0].clone() for split in splits]
    wanted = {split.boundaries[0].fingerprint: (split, split.boundaries[0]) for split in splits}
    found = PrefixExecutor(wanted, SETTING).run(images)
    for split, right in zip(splits, expected, strict=True):
        torch.testing.assert_close(found[split.boundaries[0].fingerprint], right)


def test_all_views_of_an_image_are_made_of_one_decoding(
    images: tuple[Image, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    from networks import REGISTRY

    split, _ = divided(classifier("plain"), "backbone")
    preprocess = backbone("plain").preprocess
    transform = REGISTRY.make("augmentation", "standard", {}, preprocess)
    views = [View(preprocess), *(View(preprocess, transform, (number,), "standard") for number in (1, 2, 3))]
    store, owner = FeatureStore(), ("a", "train")
    jobs = plan_extraction([FeatureRequest(split, view, images, owner) for view in views], store, SETTING)
    assert [len(job) for job in jobs] == [160]
    decoded: list[Path] = []
    monkeypatch.setattr(pixels_module, "read", lambda path: decoded.append(path) or read_image(path))
    assert extract_features(jobs, store, SETTING, ViewReader()) == {owner: 160}
    # an image at the end of one batch may go on in the next; 32 is a multiple of 4
    assert sorted(decoded) == sorted(image.sample.path for image in images)
    for view in views:
        ((_, batch),) = load_batches(ViewReader(), images, [view] * 40, [np.arange(40)])
        rows = store.column(column_key(split.boundaries[0], view, SETTING))
        found = rows.rows([image.sha256 for image in images]).take(np.arange(40)).flatten(0, 1)
        torch.testing.assert_close(found, split.prefix(batch)[0], rtol=1e-4, atol=1e-5)


def test_a_batch_is_as_large_as_memory_allows(
    images: tuple[Image, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    split, _ = divided(classifier("residual"), "backbone")
    view, boundary = View(backbone("residual").preprocess), split.boundaries[0]
    executor = PrefixExecutor({boundary.fingerprint: (split, boundary)}, SETTING)
    # the widest moment: two maps of 64 channels at half the size, in front of the pooling
    both, largest = executor.footprint(torch.zeros(2, 3, 64, 64))
    assert largest == 2 * 64 * 32 * 32
    assert 4 * largest <= both <= 3 * 4 * largest
    each = both // 2
    assert batch_size(executor, 64, SETTING.device) == 32
    found = []
    for number, room in enumerate((32, 5)):
        monkeypatch.setattr(extraction, "total_memory", lambda _, room=room: 4 * room * each)
        assert batch_size(executor, 64, SETTING.device) == (32 if room == 32 else 4)
        store = FeatureStore(Path(f"{FeatureStore().folder}{number}"))
        jobs = plan_extraction([FeatureRequest(split, view, images, ("a", "train"))], store, SETTING)
        extract_features(jobs, store, SETTING, ViewReader())
        column = store.column(column_key(boundary, view, SETTING))
        found.append(column.rows([image.sha256 for image in images]).take(np.arange(40)))
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-5)


def test_no_tensor_of_a_batch_has_too_many_elements(monkeypatch: pytest.MonkeyPatch) -> None:
    split, _ = divided(classifier("residual"), "backbone")
    executor = PrefixExecutor(
        {boundary.fingerprint: (split, boundary) for boundary in split.boundaries}, SETTING
    )
    monkeypatch.setattr(extraction, "LARGEST", 9 * 64 * 32 * 32)
    assert batch_size(executor, 64, SETTING.device) == 8


class Squeezing(nn.Module):
    """Squeezes a batch of one image away."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.last = nn.Conv2d(3, 4, 3), nn.BatchNorm1d(4), nn.Linear(4, 4)

    def forward(self, images: Tensor) -> Tensor:
        found: Tensor = self.last(self.norm(self.conv(images).mean((2, 3), keepdim=True).squeeze()))
        return found


def test_no_batch_of_one_image_where_its_size_is_found() -> None:
    base = tiny(Squeezing())
    network = Classifier(base, REGISTRY.make("head", "linear", {}, base, ["a", "b"]))
    split, _ = divided(network, "backbone", size=32)
    executor = PrefixExecutor(
        {boundary.fingerprint: (split, boundary) for boundary in split.boundaries}, SETTING
    )
    assert batch_size(executor, 32, SETTING.device) == 32
