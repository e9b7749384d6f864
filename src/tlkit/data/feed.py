"""What training and evaluation read from: batches of whatever crosses the frontier."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

Places = NDArray[np.int64]


class Feed(Protocol):
    """A source of what crosses the frontier."""

    def __len__(self) -> int:
        """How many images there are."""

    def batches(self, order: Places, size: int, epoch: int) -> Iterator[tuple[Places, tuple[Tensor, ...]]]:
        """Batches in that order, as an epoch sees them; each tensor ``(k·b, …)``, on the device."""


def chunks(order: Places, size: int) -> list[Places]:
    """`order` in parts of `size`; a last part of one image joins its neighbour: batch norm needs two."""
    parts = [order[start : start + size] for start in range(0, len(order), size)]
    if len(parts) > 1 and len(parts[-1]) == 1:
        parts[-2:] = [np.concatenate(parts[-2:])]
    return parts
