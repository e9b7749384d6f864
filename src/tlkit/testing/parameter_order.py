"""The order in which a network uses its parameters."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves


class _FirstUses(TorchFunctionMode):
    """Records the order in which parameters first enter an operation that returns a tensor.

    Reading a parameter's shape or device does not count.
    """

    def __init__(self, names: Mapping[int, str]) -> None:
        """Takes the parameters' names by the `id` of each."""
        super().__init__()
        self.names = names
        self.order: dict[str, int] = {}

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if any(isinstance(output, Tensor) for output in tree_leaves(result)):
            for argument in tree_leaves((args, kwargs)):
                name = self.names.get(id(argument))
                if name is not None:
                    self.order.setdefault(name, len(self.order))
        return result


def parameter_order(module: nn.Module, run: Callable[[], object]) -> dict[str, int]:
    """Calls `run`, and returns for each parameter that it used how many others were used before it."""
    uses = _FirstUses({id(value): name for name, value in module.named_parameters()})
    with uses:
        run()
    return uses.order
