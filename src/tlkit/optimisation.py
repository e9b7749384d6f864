"""Optimisers and schedules: timm's own, by the names it knows them by, made and checked."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from tlkit.errors import close_matches

if TYPE_CHECKING:
    import torch
    from torch import nn

#: timm's schedules that go by the epoch alone; timm keeps no list of its own.
SCHEDULES = ("cosine", "tanh", "step", "multistep", "poly")


def make_optimizer(module: nn.Module, name: str, options: Mapping[str, Any]) -> torch.optim.Optimizer:
    """timm's optimiser of that name over what learns in `module`.

    Where it is one of torch's that can take a step in one pass over the weights ("fused"), it does, unless
    the options ask for another of torch's ways: on a processor that is half the time and less.
    """
    from timm.optim import create_optimizer_v2, get_optimizer_class

    made: Any = get_optimizer_class(name, bind_defaults=False)
    asked = any(options.get(way) for way in ("foreach", "differentiable"))
    fused = {"fused": True} if "fused" in inspect.signature(made).parameters and not asked else {}
    optimizer: torch.optim.Optimizer = create_optimizer_v2(module, opt=name, **{**fused, **options})
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
    wrong = _no_numbers(options, ("lr", "momentum", "weight_decay", "eps"))
    if wrong:
        return wrong
    module = torch.nn.Linear(1, 1)
    try:
        make_optimizer(module, name, options)
    except (TypeError, ValueError, RuntimeError, AssertionError, ImportError) as error:
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
    texts = ("decay_milestones", "decay_fn", "plateau_mode", "warmup_prefix", "stable_timescale", "noise")
    wrong = unknown or _no_numbers(options, [key for key in known if key not in texts])
    if wrong:
        return wrong
    optimizer = torch.optim.SGD(torch.nn.Linear(1, 1).parameters(), lr=1.0)
    try:
        make_schedule(optimizer, name, options, epochs=10).step(1)
    except (TypeError, ValueError, AssertionError, AttributeError, ArithmeticError) as error:
        return [(_mentioned(options, str(error)), f"timm's {name} refuses this: {error}")]
    return []


def _no_numbers(options: Mapping[str, Any], keys: Iterable[str]) -> list[tuple[str, str]]:
    """Those of `keys` whose value is no number, though timm would take some of them."""
    return [
        (key, f"must be a number, not {options[key]!r}")
        for key in keys
        if key in options and (isinstance(options[key], bool) or not isinstance(options[key], (int, float)))
    ]


def _mentioned(options: Mapping[str, Any], message: str) -> str:
    """The option that a message is about, as far as it says."""
    return next((key for key in options if f"'{key}'" in message or f" {key} " in message), "name")
