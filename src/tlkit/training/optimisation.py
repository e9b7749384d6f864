"""Optimisers and schedules, timm's own, by the names it knows them by."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from tlkit.recipe import Part


def make_optimizer(module: nn.Module, part: Part) -> torch.optim.Optimizer:
    """timm's optimiser of that name over what learns in `module`."""
    from timm.optim import create_optimizer_v2

    optimizer: torch.optim.Optimizer = create_optimizer_v2(module, opt=part.name, **part.options)
    return optimizer


def make_schedule(optimizer: torch.optim.Optimizer, part: Part | None, epochs: int) -> Any | None:
    """timm's learning-rate schedule of that name, stepped once per epoch; None for a constant rate."""
    from timm.scheduler import create_scheduler_v2

    if part is None:
        return None
    schedule, _ = create_scheduler_v2(optimizer, sched=part.name, num_epochs=epochs, **part.options)
    return schedule
