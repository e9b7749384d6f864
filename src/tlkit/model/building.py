"""Limits on the parts that a model folder lets be built: it may be a stranger's.

While a part is built, it may not become larger than the weights that belong to it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from tlkit.errors import TlkitError

#: What a part may create while it is built, beside what its weights need: a pretrained network's own last
#: layer, positions, initial values.
SPARE_BYTES = 512 * 2**20
SPARE_OPERATIONS = 20_000


@contextmanager
def built_within(weights: Mapping[str, tuple[int, ...]]) -> Iterator[None]:
    """Stops building parts that become much larger than the weights that belong to them.

    Args:
        weights: the shapes of those weights, by name.

    Raises:
        TooLarge: a part creates more or larger tensors.
    """
    size = 4 * sum(math.prod(shape) for shape in weights.values())
    with _Budget(3 * size + SPARE_BYTES, 100 * len(weights) + SPARE_OPERATIONS):
        yield


class TooLarge(TlkitError):
    """A part that becomes larger than the weights that belong to it."""


class _Budget(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Limits the bytes of new tensors, of each result, and the number of operations."""

    def __init__(self, size: int, operations: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._size = size
        self._left = size
        self._operations = operations

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        self._operations -= 1
        result = func(*args, **(kwargs or {}))
        # what is only allocated takes no memory yet
        size = result.numel() * result.element_size() if isinstance(result, Tensor) else 0
        if not any(isinstance(value, Tensor) for value in args):
            self._left -= size
        if self._left < 0 or size > self._size or self._operations < 0:
            raise TooLarge("the network that it describes is larger than its weights")
        return result
