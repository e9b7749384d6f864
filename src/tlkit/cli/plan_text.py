"""Prints plans and estimates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from tlkit.cli.console import say
from tlkit.utils.formatting import format_bytes, format_duration, plural

if TYPE_CHECKING:
    from tlkit.experiment.estimate import Estimate
    from tlkit.experiment.plan import PhasePlan, Plan

#: How many class names a plan lists.
CLASSES_SHOWN = 6


def print_plan(plan: Plan) -> None:
    """Prints a plan: its images, then what is trainable, frozen and cached in each phase."""
    counts = ", ".join(f"{count:,} {name}" for name, count in plan.data.counts().items() if count)
    more = " …" if len(plan.classes) > CLASSES_SHOWN else ""
    classes = ", ".join(plan.classes[:CLASSES_SHOWN]) + more
    times = f", drawn {plural(plan.data.repeats, 'time')}" if plan.data.repeats > 1 else ""
    folds = f" in {plan.data.folds} folds{times}" if plan.data.folds else ""
    say(f"{plan.recipe}: {classes}; images: {counts}{folds}; on {plan.device}", hanging=2)
    if plan.data.about:
        say(f"the images are {plan.data.about}", hanging=2)
    if plan.data.corrections:
        say(plan.data.corrections, hanging=2)
    if plan.data.rejected:
        rejected = plural(len(plan.data.rejected), "image")
        say(f"left out: {rejected} (listed in results.json under data.rejected)", hanging=2)
    for number, phase in enumerate(plan.phases, 1):
        say()
        _print_phase(number, phase)
    say()


def print_estimates(estimates: Mapping[str, Estimate], folds: int) -> None:
    """Prints how long each phase will train, with cached features and without.

    Args:
        estimates: of training on all images, by phase.
        folds: the number of folds that each phase is trained on, too; 0: none.
    """
    for name, once in estimates.items():
        # of k folds, each trains on all images but a k-th
        times = max(1, folds)
        cached_seconds = None if once.cached is None else times * once.cached
        estimate = replace(once, fresh=times * once.fresh, cached=cached_seconds)
        if folds:
            name = f"{name}, if it is tried on all {folds} folds,"
        fresh = f"{format_duration(estimate.fresh)} with images read anew each epoch"
        if estimate.cached is None:
            say(f"{name} will train for about {fresh}", hanging=2)
            continue
        cached = _describe_cached_estimate(estimate, estimate.cached)
        chosen, other = (cached, fresh) if estimate.uses_cache else (fresh, cached)
        say(f"{name} will train for about {chosen}; it would be {other}", hanging=2)
    if estimates:
        say()


def _print_phase(number: int, phase: PhasePlan) -> None:
    start = f", from {phase.start_from}" if phase.start_from else ""
    epochs = plural(phase.epochs, "epoch") if phase.epochs else "no training"
    network = f"{phase.backbone.rpartition('/')[2]} + {phase.head}"
    say(
        f"{number} {phase.name}: {network}{start}, {phase.image_size} px, {phase.precision}, {epochs}",
        style="bold",
        hanging=2,
    )
    _say_field("trainable", _describe_trainable(phase))
    if phase.head_untrained:
        warning = "unless it came with weights, its predictions mean nothing"
        _say_field("", f"nothing trains the head {phase.head}: {warning}")
    _say_field("frozen", f"{phase.frozen:,}")
    _say_field("frontier", phase.frontier)
    _say_field("cached", _describe_cached(phase))


def _say_field(name: str, text: str) -> None:
    say(f"  {name:<9}  {text}", hanging=13)


def _describe_trainable(phase: PhasePlan) -> str:
    """Describes how many parameters of the backbone and of the head are trainable."""
    trainable = [block for block in phase.blocks if block.state != "frozen"]
    parts = []
    if trainable:
        count = phase.trainable - phase.trainable_head
        parts.append(f"{count:,} in {len(trainable)} of {len(phase.blocks)} blocks")
    if phase.trainable_head:
        parts.append(f"{phase.trainable_head:,} in the head")
    return " + ".join(parts) or "nothing"


def _describe_cached(phase: PhasePlan) -> str:
    """Describes the cached features, and why those of training images are not cached."""
    if not phase.feature_bytes:
        return f"nothing: {phase.why_not}" if phase.why_not else "nothing"
    shapes = " + ".join("×".join(str(length) for length in shape) for shape in phase.feature_shapes)
    views = "" if phase.views in (1, "fresh") else f", {phase.views} views of each training image"
    cached = f"{shapes} per image{views}: {format_bytes(phase.feature_bytes)}"
    return f"{cached}; not of training images: {phase.why_not}" if phase.why_not else cached


def _describe_cached_estimate(estimate: Estimate, seconds: float) -> str:
    features = f"{estimate.views} cached views" if estimate.views > 1 else "cached features"
    size = format_bytes(estimate.feature_bytes)
    computed = "computed already"
    if estimate.extraction:
        computed = f"{format_duration(estimate.extraction)} to compute them"
    return f"{format_duration(seconds)} with {features} ({size}, {computed})"
