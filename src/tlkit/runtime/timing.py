"""Measures how long a computation takes."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

import torch

#: Seconds after which a first measurement is accurate enough.
LONG_ENOUGH = 2.0
Value = TypeVar("Value")


def timed(run: Callable[[], Value], device: torch.device) -> tuple[float, Value]:
    """Returns the seconds of a second call, or of the first if that took long, and its result.

    A GPU's first call compiles kernels, so that it tells nothing about the next.
    """
    for _ in range(2):
        began = time.perf_counter()
        value = run()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds = time.perf_counter() - began
        if seconds > LONG_ENOUGH and device.type != "cuda":
            break
    return seconds, value
