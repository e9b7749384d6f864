"""Divides an optimiser's state into named tensors and plain JSON, and puts it together again."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

State = dict[str, Tensor]

_DTYPES = {str(value): value for value in vars(torch).values() if isinstance(value, torch.dtype)}


def pack(value: Any, tensors: State) -> Any:
    """Returns `value` as JSON has it, and adds its tensors to `tensors`.

    What JSON does not have is an object with one key: a tensor's name, a tuple's values, the name of a dtype,
    or a dictionary's pairs, since keys may be numbers.

    Raises:
        TypeError: it holds something else.
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Tensor):
        name = str(len(tensors))
        tensors[name] = value
        return {"tensor": name}
    if isinstance(value, list):
        return [pack(item, tensors) for item in value]
    if isinstance(value, tuple):
        return {"tuple": [pack(item, tensors) for item in value]}
    if isinstance(value, dict):
        return {"dict": [[key, pack(item, tensors)] for key, item in value.items()]}
    if isinstance(value, torch.dtype):
        return {"dtype": str(value)}
    raise TypeError(f"a {type(value).__name__} cannot be saved")


def unpack(packed: Any, tensors: State) -> Any:
    """Returns what `pack` was given.

    Raises:
        KeyError: a tensor or dtype is missing.
        TypeError: `packed` has another form.
        ValueError: as TypeError.
    """
    if isinstance(packed, list):
        return [unpack(item, tensors) for item in packed]
    if not isinstance(packed, dict):
        return packed
    ((kind, content),) = packed.items()
    if kind == "tuple":
        return tuple(unpack(item, tensors) for item in content)
    if kind == "dict":
        return {key: unpack(item, tensors) for key, item in content}
    return _DTYPES[content] if kind == "dtype" else tensors[content]
