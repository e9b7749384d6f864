"""Optimisers and schedules: timm's own, by the names it knows them by, made and checked."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tlkit.errors import close_matches

if TYPE_CHECKING:
    import torch
    from torch import nn

#: The schedules that timm.scheduler.create_scheduler_v2 knows; it keeps no list of its own.
SCHEDULES = ("cosine", "tanh", "step", "multistep", "plateau", "poly")


def make_optimizer(module: nn.Module, name: str, options: Mapping[str, Any]) -> torch.optim.Optimizer:
    """timm's optimiser of that name over what learns in `module`."""
    from timm.optim import create_optimizer_v2

    optimizer: torch.optim.Optimizer = create_optimizer_v2(module, opt=name, **options)
    return optimizer


def make_schedule(
    optimizer: torch.optim.Optimizer, name: str, options: Mapping[str, Any], epochs: int
) -> Any:
    """timm's learning-rate schedule of that name over so many epochs, stepped once per epoch."""
    from timm.scheduler import create_scheduler_v2

    return create_scheduler_v2(optimizer, sched=name, num_epochs=epochs, **options)[0]


def optimizer_problems(name: str, options: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What timm would refuse: (option, or "name", and a message)."""
    import torch
    from timm.optim import list_optimizers

    if name not in list_optimizers():
        return [("name", f"timm knows no optimiser {name!r}{close_matches(name, list_optimizers())}")]
    wrong = [
        (key, f"must be a number, not {value!r}")
        for key, value in options.items()
        if key in ("lr", "momentum", "weight_decay", "eps") and not _is_number(value)
    ]
    if wrong:
        return wrong
    module = torch.nn.Linear(1, 1)
    try:
        make_optimizer(module, name, options)
    except (TypeError, ValueError, AssertionError, ImportError) as error:
        return [(_mentioned(options, str(error)), f"timm's {name} refuses this: {error}")]
    return []


def schedule_problems(name: str, options: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What timm would refuse: (option, or "name", and a message)."""
    import torch
    from timm.scheduler import create_scheduler_v2

    if name not in SCHEDULES:
        hint = close_matches(name, SCHEDULES) or f"; there are {', '.join(SCHEDULES)}"
        return [("name", f"timm knows no schedule {name!r}{hint}")]
    known = set(inspect.signature(create_scheduler_v2).parameters) - {"optimizer", "sched", "num_epochs"}
    unknown = [(key, f"is unknown{close_matches(key, known)}") for key in options if key not in known]
    if unknown:
        return unknown
    optimizer = torch.optim.SGD(torch.nn.Linear(1, 1).parameters(), lr=1.0)
    try:
        make_schedule(optimizer, name, options, epochs=10).step(1)
    except (TypeError, ValueError, AssertionError, AttributeError) as error:
        return [(_mentioned(options, str(error)), f"timm's {name} refuses this: {error}")]
    return []


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _mentioned(options: Mapping[str, Any], message: str) -> str:
    """The option that a message is about, as far as it says."""
    return next((key for key in options if f"'{key}'" in message or f" {key} " in message), "name")
