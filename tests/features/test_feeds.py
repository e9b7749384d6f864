"""What a network behind its frontier is fed with."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
import torch
from networks import classifier, divided

from tlkit.features import feeds, store
from tlkit.features.feeds import CachedFeed
from tlkit.features.store import FeatureStore, Rows, Writer
from tlkit.runtime.devices import ComputeConfig

SETTING = ComputeConfig(torch.device("cpu"), torch.float32)
NAMES = [hashlib.sha256(str(number).encode()).hexdigest() for number in range(10)]


def kept(key: str, features: torch.Tensor) -> Rows:
    column = FeatureStore().column(key * 20)
    writer = Writer(column)
    writer.add(NAMES, features)
    writer.flush()
    return FeatureStore().column(key * 20).rows(NAMES)


@pytest.mark.parametrize("free", [2**40, 0], ids=["held in memory", "read as it is asked for"])
def test_views_take_turns_wherever_the_features_are(free: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feeds, "free_memory", lambda _: free)
    monkeypatch.setattr(store, "SHARD_BYTES", 200)  # brought together in several parts
    split, _ = divided(classifier("residual"), "all-but-last-blocks", blocks=1)
    features = torch.randn(3, 10, 1, 2, 3, 3)
    views = [[kept(key, of_view)] for key, of_view in zip(("aa", "bb", "cc"), features, strict=True)]
    turns = [0, 1, 2] * 3 + [0]
    feed = CachedFeed(views, turns, split, SETTING)
    assert len(feed) == 10
    for epoch in range(4):
        order = np.random.default_rng(epoch).permutation(10)
        found = list(feed.batches(order, 4, epoch))
        assert np.concatenate([places for places, _ in found]).tolist() == order.tolist()
        for places, (batch,) in found:
            expected = [features[(turns[place] + epoch) % 3, place, 0] for place in places]
            assert torch.equal(batch, torch.stack(expected))
            assert batch.is_contiguous(memory_format=torch.channels_last)
