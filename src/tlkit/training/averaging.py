"""The exponential moving average of the weights, which is validated and kept in their place."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from tlkit.training.packing import State


class WeightAverage:
    """The exponential moving average of what training changes, as timm's ModelEmaV3 with its warm-up has it.

    Trainable parameters and floating-point buffers are averaged. In step n the decay is the smaller one of
    `decay` and ``1 - n ** (-2 / 3)``, so that the average soon forgets the weights that training began with.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        """Begins with the weights as they are."""
        from timm.utils import ModelEmaV3

        trainable = {name for name, value in network.named_parameters() if value.requires_grad}
        buffers = {name for name, value in network.named_buffers() if _can_be_averaged(value)}
        self._values: State = {
            name: value
            for name, value in network.state_dict(keep_vars=True).items()
            if name in trainable or name in buffers
        }
        self._weights = _as_module(self._values)
        self._ema = ModelEmaV3(self._weights, decay, use_warmup=True)
        self._averages: State = dict(
            zip(self._values, self._ema.module.state_dict(keep_vars=True).values(), strict=True)
        )

    def update(self, steps: int) -> None:
        """Adds the weights after that many steps to the average."""
        self._ema.update(self._weights, step=steps)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Has the average in the network, in place of the weights."""
        weights = {name: value.detach().clone() for name, value in self._values.items()}
        _copy(self._averages, self._values)
        try:
            yield
        finally:
            _copy(weights, self._values)

    def state(self) -> State:
        """Returns the average, by the names of the network's parameters and buffers."""
        return {name: value.detach() for name, value in self._averages.items()}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Sets the average to what `state` returned."""
        _copy(state, self._averages)


def _can_be_averaged(buffer: Tensor) -> bool:
    # masks of attention may hold infinities, whose average is not a number
    return buffer.is_floating_point() and bool(buffer.isfinite().all())


def _as_module(values: State) -> nn.Module:
    """Returns a module of these very tensors, in this order, for timm to average."""
    return nn.ParameterList(
        value if isinstance(value, nn.Parameter) else nn.Parameter(value, requires_grad=False)
        for value in values.values()
    )


@torch.no_grad()
def _copy(source: Mapping[str, Tensor], target: Mapping[str, Tensor]) -> None:
    for name, value in target.items():
        value.copy_(source[name])
