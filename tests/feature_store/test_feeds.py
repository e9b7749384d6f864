"""Feeds: which view of an image an epoch sees, from cached features and from images."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from networks import REGISTRY, backbone, classifier, partitioned

from tlkit.data.images import Image
from tlkit.data.inspection import inspect_images
from tlkit.data.loader import load_batches
from tlkit.data.views import View, ViewReader
from tlkit.feature_store import feeds, store
from tlkit.feature_store.feeds import CachedFeed, ImageFeed
from tlkit.feature_store.store import FeatureStore, Rows
from tlkit.parts.source import Sample
from tlkit.runtime.devices import ComputeConfig

COMPUTE = ComputeConfig(torch.device("cpu"), torch.float32)
NAMES = [hashlib.sha256(str(number).encode()).hexdigest() for number in range(10)]


def cache_features(key: str, features: torch.Tensor) -> Rows:
    """Stores features of the ten images, and returns them as they are read."""
    writer = FeatureStore().writer(key * 20)
    writer.add(NAMES, features)
    writer.flush()
    return FeatureStore().column(key * 20).rows(NAMES)


@pytest.mark.parametrize("free", [2**40, 0], ids=["held in memory", "read on demand"])
def test_views_are_used_in_turn_wherever_the_features_are(free: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feeds, "free_memory", lambda _: free)
    monkeypatch.setattr(store, "SHARD_BYTES", 200)  # loaded in several parts
    network, _ = partitioned(classifier("residual"), "all-but-last-blocks", blocks=1)
    features = torch.randn(3, 10, 1, 2, 3, 3)
    views = [
        [cache_features(key, of_view)] for key, of_view in zip(("aa", "bb", "cc"), features, strict=True)
    ]
    offsets = [0, 1, 2] * 3 + [0]
    feed = CachedFeed(views, offsets, network, COMPUTE)
    assert len(feed) == 10
    for epoch in range(4):
        order = np.random.default_rng(epoch).permutation(10)
        batches = list(feed.batches(order, 4, epoch))
        assert np.concatenate([indices for indices, _ in batches]).tolist() == order.tolist()
        for indices, (batch,) in batches:
            expected = [features[(offsets[index] + epoch) % 3, index, 0] for index in indices]
            assert torch.equal(batch, torch.stack(expected))
            assert batch.is_contiguous(memory_format=torch.channels_last)


@pytest.fixture
def images(photos: Path) -> tuple[Image, ...]:
    samples = [Sample(f"cat.{number}.jpg", photos / f"cat.{number}.jpg", 0) for number in range(1, 6)]
    return tuple(inspect_images(samples, threads=2)[0])


@pytest.mark.parametrize("fresh", [False, True], ids=["views in turn", "fresh views"])
def test_images_are_read_in_the_views_of_the_epoch(fresh: bool, images: tuple[Image, ...]) -> None:
    network, _ = partitioned(classifier("residual"), "all-but-last-blocks", blocks=1)
    preprocess = backbone("residual").preprocess
    augmentation = REGISTRY.make("augmentation", "standard", {}, preprocess)
    augmented = View(preprocess, augmentation, (1,), "standard")
    views = [augmented] if fresh else [View(preprocess), augmented]
    offsets = [0, 0, 0, 0, 0] if fresh else [0, 1, 0, 1, 0]
    feed = ImageFeed(ViewReader(), images, views, offsets, network, COMPUTE, remember=True, fresh=fresh)
    assert len(feed) == 5
    order = np.array([3, 0, 4, 1, 2])
    for epoch in range(3):
        of_epoch = [augmented.drawn(epoch) if fresh else views[(offset + epoch) % 2] for offset in offsets]
        ((_, pixels),) = load_batches(ViewReader(), images, of_epoch, [order])
        (expected,) = network.prefix(pixels)
        batches = list(feed.batches(order, 2, epoch))
        assert [indices.tolist() for indices, _ in batches] == [[3, 0], [4, 1, 2]]
        features = torch.cat([crossing[0] for _, crossing in batches])
        torch.testing.assert_close(features, expected, rtol=1e-4, atol=1e-5)
