"""What training and evaluation read: batches of the tensors that cross the frontier."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

Indices = NDArray[np.int64]


class Feed(Protocol):
    """An ordered set of images, read as batches of the tensors that cross the frontier."""

    def __len__(self) -> int:
        """Returns the number of images."""

    def batches(self, order: Indices, size: int, epoch: int) -> Iterator[tuple[Indices, tuple[Tensor, ...]]]:
        """Yields batches in that order, as the epoch sees them; tensors are ``(k·b, …)`` on the device."""


def batch_indices(order: Indices, size: int) -> list[Indices]:
    """Divides `order` into batches of `size`; a last batch of one joins its neighbour, for batch norm."""
    batches = [order[start : start + size] for start in range(0, len(order), size)]
    if len(batches) > 1 and len(batches[-1]) == 1:
        batches[-2:] = [np.concatenate(batches[-2:])]
    return batches
