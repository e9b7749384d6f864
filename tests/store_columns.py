"""Writes features into a column of a feature store."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch

from tlkit.feature_store.store import FeatureStore, Writer

KEY = "ab" + "0" * 38


def hashes(count: int, start: int = 0) -> list[str]:
    """Returns the sha256 of some images."""
    return [hashlib.sha256(str(number).encode()).hexdigest() for number in range(start, start + count)]


def write(store: FeatureStore, images: Sequence[str], features: torch.Tensor, key: str = KEY) -> None:
    writer = Writer(store.column(key))
    writer.add(images, features)
    writer.flush()
