"""Propagates shapes through a network without computing, on torch's meta device."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn

#: Layers whose output has the shape of their input, and which take long to find that out.
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.LayerNorm)
_LIBRARIES = ("torch.nn.", "timm.layers.")


@contextmanager
def shapes_only(module: nn.Module) -> Iterator[None]:
    """Puts a network's tensors, and those that it makes, on the meta device, and restores it afterwards.

    Tensors have a shape there, and no values: a network that looks at values fails.

    Raises:
        TypeError: a part of it is TorchScript, whose tensors cannot be exchanged.
    """
    if any(isinstance(submodule, torch.jit.ScriptModule) for submodule in module.modules()):
        raise TypeError(f"{type(module).__name__} has a part in TorchScript")
    with preserve_state(module), torch.no_grad(), torch.device("meta"):
        for submodule in module.modules():
            _skip_values(submodule)
            for tensors in (vars(submodule), vars(submodule)["_parameters"], vars(submodule)["_buffers"]):
                for name, value in tensors.items():
                    if isinstance(value, Tensor):
                        tensors[name] = value.to("meta")
        yield


def _skip_values(module: nn.Module) -> None:
    """Lets a norm or a linear layer check and make shapes, and nothing else; `preserve_state` undoes it."""
    if isinstance(module, _NORMS) and type(module).__module__.startswith(_LIBRARIES):
        vars(module)["forward"] = partial(_normalized, module)
    elif type(module) is nn.Linear:
        vars(module)["forward"] = partial(_mapped, module)


def _normalized(norm: nn.Module, values: Tensor) -> Tensor:
    """Returns what has the shape of a norm's output, that of its input."""
    channels = getattr(norm, "num_features", None)
    if channels not in (None, values.shape[1]):
        raise ValueError(f"a norm of {channels} channels is given {values.shape[1]}")
    return torch.empty_like(values)


def _mapped(linear: nn.Linear, values: Tensor) -> Tensor:
    """Returns what has the shape of a linear layer's output."""
    if values.shape[-1] != linear.in_features:
        raise ValueError(f"a layer for {linear.in_features} features is given {values.shape[-1]}")
    return values.new_empty(*values.shape[:-1], linear.out_features)


@contextmanager
def preserve_state(module: nn.Module) -> Iterator[None]:
    """Restores every attribute, parameter and buffer of a network afterwards.

    Some networks cache positions or sizes for their next call; what they cache while shapes are propagated
    cannot be computed with.
    """
    attributes = [vars(submodule) for submodule in module.modules()]
    # dictionaries among them hold parameters and buffers, or what a network has cached by size or device
    caches = [value for names in attributes for value in names.values() if isinstance(value, dict)]
    before = [(names, dict(names)) for names in (*attributes, *caches)]
    try:
        yield
    finally:
        for names, content in before:
            names.clear()
            names.update(content)


@contextmanager
def preserve_values(module: nn.Module) -> Iterator[None]:
    """Lets a network run without gradients, and restores its buffers' values and its state afterwards."""
    before = [(buffer, buffer.clone()) for buffer in module.buffers()]
    try:
        with torch.no_grad(), preserve_state(module):
            yield
    finally:
        for buffer, value in before:
            buffer.copy_(value)
