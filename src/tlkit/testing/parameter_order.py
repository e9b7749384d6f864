"""In which order a network reads its parameters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves


class _Reads(TorchFunctionMode):
    """Notes the first operation that each parameter goes into; asking for its shape is none."""

    def __init__(self, names: dict[int, str]) -> None:
        super().__init__()
        self.names, self.first = names, dict[str, int]()

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if any(isinstance(made, Tensor) for made in tree_leaves(result)):
            for value in tree_leaves((args, kwargs)):
                name = self.names.get(id(value))
                if name is not None:
                    self.first.setdefault(name, len(self.first))
        return result


def parameter_order(module: nn.Module, run: Callable[[], object]) -> dict[str, int]:
    """Calls `run` and says for each parameter's name how many others were read before it."""
    reads = _Reads({id(value): name for name, value in module.named_parameters()})
    with reads:
        run()
    return reads.first
