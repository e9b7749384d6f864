"""Dropout that is drawn once for all copies of a network, in a fraction of the time that torch takes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

#: The number of values of a byte.
BYTE = 256


@dataclass
class _Call:
    """A call of a dropout layer: what it multiplies by, and the last input with its output."""

    factors: Tensor
    values: Tensor
    output: Tensor


class SharedDropout:
    """Computes all copies of a network, of which each drops the same values."""

    def __init__(self, copies: Iterable[nn.Module]) -> None:
        """Replaces every `torch.nn.Dropout` in the copies; other layers that draw keep torch's generator."""
        self._copies = list(copies)
        self._generator = np.random.Generator(np.random.SFC64(0))
        # of the first copy, in order; the others have the same ones
        self._calls: list[_Call] = []
        self._next = 0
        for module in [module for copied in self._copies for module in copied.modules()]:
            for name, child in module.named_children():
                if type(child) is nn.Dropout:
                    setattr(module, name, _Dropout(child.p, self))

    def seed(self, seed: int) -> None:
        """Determines what is drawn from here on."""
        self._generator = np.random.Generator(np.random.SFC64(seed))

    def outputs(self, inputs: Tensor) -> Tensor:
        """Returns what each copy makes of the same inputs, ``(copies, N, …)``; they drop new values."""
        self._calls = []
        outputs = []
        for copied in self._copies:
            self._next = 0
            outputs.append(copied(inputs))
        return torch.stack(outputs)

    def drop(self, values: Tensor, probability: float) -> Tensor:
        """Drops values in the layer that is called next."""
        if self._next == len(self._calls):
            factors = self._draw(values, probability)
            self._calls.append(_Call(factors, values, values * factors))
        call = self._calls[self._next]
        self._next += 1
        if call.values is not values:  # copies share their inputs, and nothing behind their first weights
            call.values, call.output = values, values * call.factors
        return call.output

    def _draw(self, values: Tensor, probability: float) -> Tensor:
        """Returns a factor for each value: 0 with this probability, and otherwise what keeps the mean.

        A byte decides, unless it equals the threshold; then a second number does, so that the probability is
        exact.
        """
        threshold, rest = divmod(probability * BYTE, 1)
        numbers = self._generator.bit_generator.random_raw(-(-values.numel() // 8)).view(np.uint8)
        kept = numbers > int(threshold)
        undecided = np.flatnonzero(numbers == int(threshold))
        kept[undecided] = self._generator.random(len(undecided)) >= rest
        factors = kept[: values.numel()].astype(np.float32)
        factors *= 1 / (1 - probability) if probability < 1 else 0
        return torch.from_numpy(factors).view(values.shape)


class _Dropout(nn.Module):
    """Drops what the other copies' layer at its place drops."""

    def __init__(self, probability: float, shared: SharedDropout) -> None:
        super().__init__()
        self._probability, self._shared = probability, shared

    def forward(self, values: Tensor) -> Tensor:
        if not self.training or not self._probability:
            return values
        return self._shared.drop(values, self._probability)
