"""Makes networks whose weights are loaded, without drawing initial values that loading replaces.

Drawing them takes seconds for a network of the size of VGG16.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

Made = TypeVar("Made")

#: What fills a tensor with random numbers, and what timm's truncated normal values are made with.
DRAWING = {
    torch.ops.aten.normal_.default,
    torch.ops.aten.uniform_.default,
    torch.ops.aten.erfinv_.default,
}
#: Whether the weights of the network that is being made are loaded afterwards.
_weights_follow: ContextVar[bool] = ContextVar("weights_follow", default=False)


def without_initial_values(make: Callable[[], Made], network: Callable[[Made], nn.Module]) -> Made:
    """Makes a network and loads its weights, without drawing the values that loading replaces.

    Where some weights are not loaded, the network is made once more, with initial values.

    Args:
        make: makes the network, what does not need its initial values within `if_not_loaded`, and loads its
            weights.
        network: returns the network of what `make` returns.

    Returns:
        what `make` returns.
    """
    token = _weights_follow.set(True)
    try:
        made = make()
    finally:
        _weights_follow.reset(token)
    is_loaded = all(map(_is_loaded, network(made).state_dict().values()))
    return made if is_loaded else make()


@contextmanager
def if_not_loaded() -> Iterator[None]:
    """Draws initial values of parameters, unless their weights are loaded afterwards."""
    if not _weights_follow.get():
        yield
        return
    with _NotDrawn():  # type: ignore[no-untyped-call]
        yield


def _is_loaded(value: Tensor) -> bool:
    return not (value.numel() and value.is_floating_point() and math.isnan(value[(0,) * value.dim()]))


class _NotDrawn(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Marks a tensor by NaN in its first value instead of filling it with random numbers."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func not in DRAWING or (kwargs and kwargs.get("generator") is not None):
            return func(*args, **(kwargs or {}))
        tensor: Tensor = args[0]
        if tensor.numel():
            tensor[(0,) * tensor.dim()] = math.nan
        return tensor
