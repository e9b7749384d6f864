"""Feeds: which view of an image an epoch sees, from cached features and from images."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
import torch
from networks import classifier, partitioned

from tlkit.features import feeds, store
from tlkit.features.feeds import CachedFeed
from tlkit.features.store import FeatureStore, Rows, Writer
from tlkit.runtime.devices import ComputeConfig

COMPUTE = ComputeConfig(torch.device("cpu"), torch.float32)
NAMES = [hashlib.sha256(str(number).encode()).hexdigest() for number in range(10)]


def cache_features(key: str, features: torch.Tensor) -> Rows:
    """Stores features of the ten images, and returns them as they are read."""
    writer = Writer(FeatureStore().column(key * 20))
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
