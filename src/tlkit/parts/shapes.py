"""Propagates shapes through a network without computing, on torch's meta device."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

#: Layers whose output has the shape of their input, and which take long to find that out.
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.LayerNorm)
_LIBRARIES = ("torch.nn.", "timm.layers.")


@contextmanager
def shapes_only(module: nn.Module) -> Iterator[None]:
    """Puts a network's tensors, and those that it makes, on the meta device, and restores it afterwards.

    Tensors have a shape there, and no values: a network that looks at values fails.
    """
    with preserve_state(module), torch.no_grad(), torch.device("meta"):
        for submodule in module.modules():
            _skip_values(submodule)
            for tensors in (vars(submodule), vars(submodule)["_parameters"], vars(submodule)["_buffers"]):
                for name, value in tensors.items():
                    if isinstance(value, Tensor):
                        tensors[name] = value.to("meta")
        yield


def _skip_values(module: nn.Module) -> None:
    """Lets a norm or a linear layer make its output, and nothing else; `preserve_state` undoes it."""
    if isinstance(module, _NORMS) and type(module).__module__.startswith(_LIBRARIES):
        vars(module)["forward"] = torch.empty_like
    elif type(module) is nn.Linear:
        width = module.out_features
        vars(module)["forward"] = lambda values: values.new_empty(*values.shape[:-1], width)


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
