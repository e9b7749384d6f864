"""Makes and checks timm's optimisers and schedules, by timm's own names."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from tlkit.errors import close_matches
from tlkit.recipe.schema import PartSpec

if TYPE_CHECKING:
    import torch
    from timm.scheduler.scheduler import Scheduler
    from torch import nn

#: timm's schedules that depend on the epoch alone; timm has no such list.
SCHEDULES = ("cosine", "tanh", "step", "multistep", "poly")


def make_optimizer(module: nn.Module, optimizer: PartSpec) -> torch.optim.Optimizer:
    """Makes timm's optimiser of that name over the trainable parameters of `module`.

    Torch's fused implementation is used where there is one, unless the options ask for another: on a CPU it
    takes half the time or less.
    """
    from timm.optim import create_optimizer_v2, get_optimizer_class

    name, options = optimizer.name, optimizer.options
    cls: Any = get_optimizer_class(name, bind_defaults=False)
    other = any(options.get(implementation) for implementation in ("foreach", "differentiable"))
    fused = {"fused": True} if "fused" in inspect.signature(cls).parameters and not other else {}
    result: torch.optim.Optimizer = create_optimizer_v2(module, opt=name, **{**fused, **options})
    return result


def make_schedule(
    optimizer: torch.optim.Optimizer, schedule: PartSpec | None, epochs: int
) -> Scheduler | None:
    """Makes timm's learning-rate schedule of that name, stepped once per epoch; None for a constant rate."""
    from timm.scheduler import create_scheduler_v2

    if schedule is None:
        return None
    result: Scheduler = create_scheduler_v2(
        optimizer, sched=schedule.name, num_epochs=epochs, **schedule.options
    )[0]
    return result


def optimizer_problems(name: str, options: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Returns what timm refuses: (option, or "name", and a message)."""
    import torch
    from timm.optim import list_optimizers

    if name not in list_optimizers():
        return [("name", f"timm knows no optimiser {name!r}{close_matches(name, list_optimizers())}")]
    wrong = _not_numbers(options, ("lr", "momentum", "weight_decay", "eps"))
    if wrong:
        return wrong
    try:
        make_optimizer(torch.nn.Linear(1, 1), PartSpec(name=name, options=dict(options)))
    except (TypeError, ValueError, RuntimeError, AssertionError, ImportError) as error:
        return [(_mentioned_option(options, str(error)), f"timm's {name} refuses this: {error}")]
    return []


def schedule_problems(name: str, options: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Returns what timm refuses: (option, or "name", and a message)."""
    import torch
    from timm.scheduler import create_scheduler_v2

    if name not in SCHEDULES:
        hint = close_matches(name, SCHEDULES) or f"; there are {', '.join(SCHEDULES)}"
        return [("name", f"timm knows no schedule {name!r}{hint}")]
    known = set(inspect.signature(create_scheduler_v2).parameters) - {"optimizer", "sched", "num_epochs"}
    unknown = [(key, f"is unknown{close_matches(key, known)}") for key in options if key not in known]
    texts = ("decay_milestones", "decay_fn", "plateau_mode", "warmup_prefix", "stable_timescale", "noise")
    wrong = unknown or _not_numbers(options, [key for key in known if key not in texts])
    if wrong:
        return wrong
    optimizer = torch.optim.SGD(torch.nn.Linear(1, 1).parameters(), lr=1.0)
    try:
        schedule = make_schedule(optimizer, PartSpec(name=name, options=dict(options)), epochs=10)
        if schedule is not None:
            schedule.step(1)
    except (TypeError, ValueError, AssertionError, AttributeError, ArithmeticError) as error:
        return [(_mentioned_option(options, str(error)), f"timm's {name} refuses this: {error}")]
    return []


def _not_numbers(options: Mapping[str, Any], keys: Iterable[str]) -> list[tuple[str, str]]:
    """Returns a problem for each of `keys` whose value is not a number; timm would accept some of them."""
    return [
        (key, f"must be a number, not {options[key]!r}")
        for key in keys
        if key in options and (isinstance(options[key], bool) or not isinstance(options[key], (int, float)))
    ]


def _mentioned_option(options: Mapping[str, Any], message: str) -> str:
    """Returns the option that an error message is about, or "name" if it mentions none."""
    return next((key for key in options if f"'{key}'" in message or f" {key} " in message), "name")
