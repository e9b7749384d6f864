"""Sets a device up for what is computed on it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from tlkit.errors import TrainingError
from tlkit.runtime.devices import gpu_settings
from tlkit.runtime.memory import free_memory, total_memory
from tlkit.utils.formatting import format_bytes


@contextmanager
def computing_on(device: torch.device) -> Iterator[None]:
    """Sets a device up, keeps torch's random state, and says what can be done where its memory is full."""
    with gpu_settings(device), _own_random_state(device), _enough_memory(device):
        yield


@contextmanager
def _enough_memory(device: torch.device) -> Iterator[None]:
    """Says what can be done where a GPU's memory is full."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        free, total = free_memory(device), total_memory(device)
        raise TrainingError(
            f"the memory of {device} is too small ({format_bytes(free)} of {format_bytes(total)} are free): "
            "try a smaller training.batch_size or preprocess.size, a freeze policy that trains less, or "
            "device cpu; the results so far are kept"
        ) from error


@contextmanager
def _own_random_state(device: torch.device) -> Iterator[None]:
    """Restores torch's random state afterwards: it is the caller's."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        yield
