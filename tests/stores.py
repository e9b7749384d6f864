"""Writes features into a column of a feature store, and reads all that a store has."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import torch

from tlkit.feature_store.shards import open_shard
from tlkit.feature_store.store import FeatureStore

KEY = "ab" + "0" * 38


def hashes(count: int, start: int = 0) -> list[str]:
    """Returns the sha256 of some images."""
    return [hashlib.sha256(str(number).encode()).hexdigest() for number in range(start, start + count)]


def write(store: FeatureStore, images: Sequence[str], features: torch.Tensor, key: str = KEY) -> None:
    writer = store.writer(key)
    writer.add(images, features)
    writer.flush()


def stored(folder: Path) -> dict[tuple[str, bytes], bytes]:
    """Returns the bits of each feature in a store, by column and image."""
    features = {}
    for path in (folder / "features").glob("??/*/*.safetensors"):
        shard = open_shard(path, path.parent.name)
        assert shard is not None
        for image, row in zip(shard.images, shard.features, strict=True):
            key = path.parent.name, image.tobytes()
            assert key not in features, "computed twice"
            features[key] = row.numpy().tobytes()
    return features
