"""Makes and checks timm's optimisers and schedules, by timm's own names."""

from __future__ import annotations

import inspect
import json
import math
from collections.abc import Iterable, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

from tlkit.errors import close_matches
from tlkit.recipe.schema import PartSpec

if TYPE_CHECKING:
    import torch
    from timm.scheduler.scheduler import Scheduler
    from torch import nn

#: timm's schedules that depend on the epoch alone, and the options that have an effect on each, besides
#: `SCHEDULE_OPTIONS`; timm has no such list. A schedule's first cycle is as long as the phase.
SCHEDULES = {
    "cosine": ("min_lr", "k_decay"),
    "tanh": ("min_lr",),
    "step": ("decay_epochs", "decay_rate"),
    "multistep": ("decay_milestones", "decay_rate"),
    "poly": ("min_lr", "k_decay", "decay_rate"),
}
SCHEDULE_OPTIONS = (
    "warmup_epochs",
    "warmup_lr",
    "warmup_prefix",
    "noise",
    "noise_pct",
    "noise_std",
    "noise_seed",
)
#: Options of timm's function that a recipe cannot set: code, names of parameters, another way to freeze.
WITHOUT_EFFECT = (
    "layer_decay_no_opt_scale",
    "param_group_fn",
    "fallback_list",
    "fallback_no_weight_decay",
)
#: How many epochs of a schedule are tried.
EPOCHS_TRIED = 1000


def make_optimizer(module: nn.Module, optimizer: PartSpec) -> torch.optim.Optimizer:
    """Makes timm's optimiser of that name over the trainable parameters of `module`.

    Torch's fused implementation is used where there is one, unless the options ask for another: on a CPU it
    takes half the time or less. With `layer_decay`, timm groups the parameters by the layers that the
    module's `group_matcher` gives, and the schedule scales the groups' rates.
    """
    from timm.optim import create_optimizer_v2, get_optimizer_class

    name, options = optimizer.name, optimizer.options
    cls: Any = get_optimizer_class(name, bind_defaults=False)
    other = any(options.get(implementation) for implementation in ("foreach", "differentiable"))
    fused = {"fused": True} if "fused" in inspect.signature(cls).parameters and not other else {}
    result: torch.optim.Optimizer = create_optimizer_v2(module, opt=name, **{**fused, **options})
    return result


def make_schedule(
    optimizer: torch.optim.Optimizer, schedule: PartSpec | None, epochs: int, steps: int
) -> Scheduler | None:
    """Makes timm's learning-rate schedule of that name, for epochs of that many steps.

    Returns:
        The schedule, whose `step_update` sets the rates of a step by its number from 0; None for constant
        rates, which are set already.
    """
    from timm.scheduler import create_scheduler_v2

    if schedule is None:
        for group in optimizer.param_groups:
            group["lr"] *= group.get("lr_scale", 1.0)  # of layer decay; timm leaves it to schedules
        return None
    result: Scheduler = create_scheduler_v2(
        optimizer,
        sched=schedule.name,
        num_epochs=epochs,
        step_on_epochs=False,
        updates_per_epoch=steps,
        **schedule.options,
    )[0]
    return result


def optimizer_problems(name: str, options: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Returns what is wrong with an optimiser: (option, or "name", and a message).

    An optimiser that would not go on with the same numbers after an interruption is refused too.
    """
    import torch
    from timm.optim import get_optimizer_info, list_optimizers

    from tlkit.training.rehearsal import Layers

    if name not in list_optimizers():
        return [("name", f"timm knows no optimiser {name!r}{close_matches(name, list_optimizers())}")]
    info = get_optimizer_info(name)
    if info.second_order:
        return [
            ("name", f"timm's {name} needs second derivatives, which tlkit does not compute: choose another")
        ]
    idle = [(key, "has no effect here") for key in WITHOUT_EFFECT if key in options]
    taken = {"momentum": info.has_momentum, "eps": info.has_eps, "betas": info.has_betas}
    idle += [(key, f"has no effect on {name}") for key, used in taken.items() if key in options and not used]
    layers = ("layer_decay", "layer_decay_min_scale")
    wrong = idle or _not_numbers(options, ("lr", "momentum", "weight_decay", "eps", *layers))
    wrong = wrong or _not_finite(options) or _layer_problems(options)
    if wrong:
        return wrong
    try:
        part = PartSpec(name=name, options=dict(options))
        module = Layers(torch.nn.Linear(1, 1), torch.nn.Linear(1, 1))
        if make_optimizer(module, part).param_groups[0]["lr"] is None:
            return [("lr", f"is missing, and timm's {name} has no default")]
    except (TypeError, ValueError, RuntimeError, AssertionError, ImportError) as error:
        return [(_mentioned_option(options, str(error)), f"timm's {name} refuses this: {error}")]
    problem = _resume_problem(name, json.dumps(options, sort_keys=True, default=str))
    return [("name", problem)] if problem else []


def schedule_problems(name: str, options: Mapping[str, Any], epochs: int) -> list[tuple[str, str]]:
    """Returns what is wrong with a schedule of that many epochs: (option, or "name", and a message)."""
    import torch

    if name not in SCHEDULES:
        hint = close_matches(name, SCHEDULES) or f"; there are {', '.join(SCHEDULES)}"
        return [("name", f"timm knows no schedule {name!r}{hint}")]
    wrong = _schedule_option_problems(name, options)
    if wrong:
        return wrong
    warmup = options.get("warmup_epochs", 0)
    if epochs and warmup >= epochs:
        return [("warmup_epochs", f"must be less than the phase's epochs ({epochs}), and is {warmup}")]
    optimizer = torch.optim.SGD(torch.nn.Linear(1, 1).parameters(), lr=1.0)
    try:
        part = PartSpec(name=name, options=dict(options))
        schedule = make_schedule(optimizer, part, max(epochs, 1), steps=1)
        for epoch in range(min(epochs, EPOCHS_TRIED)):
            if schedule is not None:
                schedule.step_update(epoch)
    except (TypeError, ValueError, AssertionError, AttributeError, ArithmeticError) as error:
        return [(_mentioned_option(options, str(error)), f"timm's {name} refuses this: {error}")]
    return []


def _layer_problems(options: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Returns what is wrong with the options of layer decay."""
    decay, scale = options.get("layer_decay", 1), options.get("layer_decay_min_scale", 0)
    if "layer_decay" not in options and "layer_decay_min_scale" in options:
        return [("layer_decay_min_scale", "has no effect without layer_decay")]
    wrong = [] if 0 < decay <= 1 else [("layer_decay", f"must be above 0 and at most 1, and is {decay}")]
    return (
        wrong if 0 <= scale <= 1 else [*wrong, ("layer_decay_min_scale", f"must be 0 to 1, and is {scale}")]
    )


@cache
def _resume_problem(name: str, options: str) -> str | None:
    """Returns why an optimiser cannot be resumed exactly, or None; `options` are JSON."""
    from timm.optim import get_optimizer_class

    from tlkit.training.rehearsal import resumes_exactly

    part = PartSpec(name=name, options=json.loads(options))
    # other libraries than torch and timm, such as bitsandbytes, have optimisers for GPUs alone
    library = get_optimizer_class(name, bind_defaults=False).__module__.partition(".")[0]
    device = "cpu" if library in ("torch", "timm") else "cuda"
    try:
        exact = resumes_exactly(lambda module: make_optimizer(module, part), device)
    except Exception as error:  # whatever an optimiser raises would end the run later
        return f"timm's {name} cannot make a step with these options, or be saved: {error}"
    return None if exact else f"{name} cannot be resumed exactly, if a run is interrupted: choose another"


def _schedule_option_problems(name: str, options: Mapping[str, Any]) -> list[tuple[str, str]]:
    from timm.scheduler import create_scheduler_v2

    accepted = set(inspect.signature(create_scheduler_v2).parameters) - {"optimizer", "sched", "num_epochs"}
    unknown = [(key, f"is unknown{close_matches(key, accepted)}") for key in options if key not in accepted]
    effective = (*SCHEDULES[name], *SCHEDULE_OPTIONS)
    idle = [(key, f"has no effect on {name}") for key in options if key not in effective]
    numbers = [key for key in effective if key not in ("decay_milestones", "warmup_prefix", "noise")]
    return unknown or idle or _not_numbers(options, numbers) or _not_finite(options)


def _not_numbers(options: Mapping[str, Any], keys: Iterable[str]) -> list[tuple[str, str]]:
    """Returns a problem for each of `keys` whose value is not a number; timm would accept some of them."""
    return [
        (key, f"must be a number, not {options[key]!r}")
        for key in keys
        if key in options and (isinstance(options[key], bool) or not isinstance(options[key], (int, float)))
    ]


def _not_finite(options: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Returns a problem for each option that is infinite or not a number, or has such a value in a list."""
    return [
        (key, f"must be finite, and is {value}")
        for key, value in options.items()
        for number in (value if isinstance(value, list | tuple) else [value])
        if isinstance(number, float) and not math.isfinite(number)
    ]


def _mentioned_option(options: Mapping[str, Any], message: str) -> str:
    """Returns the option that an error message is about, or "name" if it mentions none."""
    message, _, _ = message.partition(" Did you mean ")  # Python suggests names, which may be other options
    return next((key for key in options if f"'{key}'" in message or f" {key} " in message), "name")
