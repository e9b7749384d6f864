"""Several processes that work together, as `accelerate launch` starts them."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from accelerate import PartialState

Value = TypeVar("Value")


def process_state() -> PartialState:
    """Returns which process this is, and of how many; one, unless `accelerate launch` started more.

    Each process computes its part of the features and trains on its part of every batch. Only the main
    process writes the run folder and shows progress.
    """
    from accelerate import PartialState

    return PartialState()


def broadcast_from_main(value: Value) -> Value:
    """Returns the main process's `value` in every process."""
    from accelerate.utils import broadcast_object_list

    shared = [value]
    broadcast_object_list(shared)
    return shared[0]
