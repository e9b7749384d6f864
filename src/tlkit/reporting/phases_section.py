"""The report's section on the phases of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from tlkit.data.views import View, ViewReader
from tlkit.experiment.plan import DataSummary, PhasePlan
from tlkit.experiment.planning import training_views
from tlkit.experiment.record import PhaseRecord, RunRecord
from tlkit.experiment.results import PhaseResult
from tlkit.model.description import read_config
from tlkit.parts.preprocess import Preprocess
from tlkit.plugins.registry import Registry
from tlkit.recipe.recipe import Recipe
from tlkit.reporting import run_charts
from tlkit.reporting.pictures import WIDTH, Album, Picture
from tlkit.reporting.run_images import RunImages
from tlkit.training.history import EpochMetrics
from tlkit.utils.formatting import format_duration

#: What is said below a chart with accuracy on training images.
TRAINING_ACCURACY = (
    "Training accuracy is measured in training mode, with augmentation and dropout and while the weights "
    "change, so it may lie below validation accuracy."
)
#: Height, in inches, of charts with a column for each phase.
PHASES_HEIGHT = 4.2
#: How many views of an image are shown.
VIEWS = 8


@dataclass(frozen=True)
class PhaseSection:
    """One phase.

    Attributes:
        name: the phase's.
        plan: its entry in plan.json, or None.
        result: its results, or None while it has not ended.
        curves: loss and accuracy per epoch; empty before the first epoch has ended.
        views: a training image in the views that the phase trained on.
        fresh: whether a new view is drawn every epoch.
        savings: describes what cached features saved; empty where features are not cached.
    """

    name: str
    plan: PhasePlan | None
    result: PhaseResult | None
    curves: list[Picture]
    views: list[Picture]
    fresh: bool
    savings: str


@dataclass(frozen=True)
class PhasesSection:
    """All phases.

    Attributes:
        networks: which blocks are trainable in which of the phases that were taken; None before the plan was
            made.
        seconds: where the time went, or None before the first phase has ended.
        phases: the phases, in order.
    """

    networks: Picture | None
    seconds: Picture | None
    phases: list[PhaseSection]


def make_phases_section(record: RunRecord, views: Mapping[str, list[Picture]], album: Album) -> PhasesSection:
    """Makes the section; `views` are the pictures of `view_photos` by phase."""
    shown = [phase for phase in record.phases if phase.result is None or phase.result.is_taken]
    plans = [phase.plan for phase in shown if phase.plan is not None]
    rate = record.seconds_per_view()
    phases = [
        PhaseSection(
            name=phase.name,
            plan=phase.plan,
            result=phase.result,
            curves=_draw_curves(phase, album) if phase.history else [],
            views=views.get(phase.name, []),
            fresh=phase.plan is not None and phase.plan.views == "fresh",
            savings=describe_savings(phase.result, record.data, rate) if phase.result and record.data else "",
        )
        for phase in record.phases
    ]
    return PhasesSection(
        networks=_draw_networks(plans, album) if plans else None,
        seconds=_draw_seconds(record.phase_results, album) if record.phase_results else None,
        phases=phases,
    )


def describe_savings(result: PhaseResult, data: DataSummary, seconds_per_view: float | None) -> str:
    """Describes how many passes through the frozen prefix cached features saved; empty without them."""
    if not result.features.cached or not result.epochs:
        return ""
    uncached = result.epochs * (data.train + data.val)
    computed = result.features.computed
    saved = uncached - computed
    if saved <= 0:
        return (
            f"in so few epochs they saved nothing ({computed:,} passes through the frozen prefix instead of "
            f"{uncached:,}); the next run reuses them"
        )
    text = f"they saved {saved:,} of {uncached:,} passes through the frozen prefix"
    if seconds_per_view is None:
        return text
    return f"{text}, about {format_duration(saved * seconds_per_view)} at this run's rate"


def view_photos(
    recipe: Recipe, phase: PhaseRecord, images: RunImages, album: Album, registry: Registry
) -> list[Picture]:
    """Makes pictures of one training image in the views of a phase; none if it trains on plain images only.

    Raises:
        RunFolderError: the phase's model, which says how images are preprocessed, cannot be read.
    """
    preprocess = read_config(phase.folder / "model").tlkit.preprocess.to_preprocess()
    views = shown_views(recipe, phase, preprocess, registry)
    image = images.first("train") if views else None
    if image is None:
        return []
    pictures = []
    pixels_per_view = ViewReader().get(image, views, remember=False)
    for number, (view, pixels) in enumerate(zip(views, pixels_per_view, strict=True), 1):
        kind = "the plain image" if view.augmentation is None else "an augmented view"
        alt = f"{image.sample.id}: {kind} in phase {phase.name}"
        pictures.append(album.photo(f"view-{phase.name}-{number}", alt, pixels))
    return pictures


def shown_views(recipe: Recipe, phase: PhaseRecord, preprocess: Preprocess, registry: Registry) -> list[View]:
    """Returns the views that a report shows of a phase; empty if it trains on plain images only."""
    planned = phase.phase
    if planned.views == "auto" and phase.plan is not None:
        planned = replace(planned, views=phase.plan.views)
    views = training_views(recipe, planned, View(preprocess), registry)
    if planned.views == "fresh":
        return [views[0].drawn(epoch) for epoch in range(min(VIEWS, len(phase.history)))]
    return list(views[:VIEWS]) if len(views) > 1 else []


def _draw_curves(phase: PhaseRecord, album: Album) -> list[Picture]:
    best = phase.result.best_epoch if phase.result else None
    kept = f"; the weights of epoch {best} were kept" if best else ""
    several = any(metrics.val_mean_average_precision is not None for metrics in phase.history)
    score = "mean average precision" if several else "accuracy"
    pictures = []
    for name, draw in (("loss", run_charts.losses), (score, run_charts.epoch_scores)):
        alt = f"{name.capitalize()} of {phase.name} over {len(phase.history)} epochs{kept}"
        if name != "loss" and not any(_has_score(metrics) for metrics in phase.history):
            continue  # in a cross-validation, there are no validation images
        curve = partial(draw, history=phase.history, best_epoch=best)
        file = f"{name.replace(' ', '-')}-{phase.name}"
        has_training = any(metrics.train_accuracy is not None for metrics in phase.history)
        caption = TRAINING_ACCURACY if name == "accuracy" and has_training else ""
        pictures.append(album.chart(file, alt, curve, height=2.4, caption=caption))
    return pictures


def _has_score(metrics: EpochMetrics) -> bool:
    return metrics.val_accuracy is not None or metrics.val_mean_average_precision is not None


def _draw_networks(plans: Sequence[PhasePlan], album: Album) -> Picture:
    summaries = []
    for plan in plans:
        trainable = sum(block.state != "frozen" for block in plan.blocks)
        summaries.append(f"{plan.name}: {trainable} of {len(plan.blocks)} trainable")
    alt = f"Blocks from input to output: {'; '.join(summaries)}"
    draw = partial(run_charts.networks, phases=plans)
    return album.chart("networks", alt, draw, width=_phases_width(len(plans)), height=PHASES_HEIGHT)


def _phases_width(phases: int) -> float:
    """Returns the width, in inches, of a chart with a column for each phase."""
    return max(WIDTH, 1.25 * phases + 0.4)


def _draw_seconds(results: Sequence[PhaseResult], album: Album) -> Picture:
    durations = {result.name: result.seconds for result in results}
    alt = "Seconds: " + ", ".join(f"{name} {seconds.total:.0f}" for name, seconds in durations.items())
    draw = partial(run_charts.seconds, durations=durations)
    return album.chart("seconds", alt, draw, width=_phases_width(len(results)), height=PHASES_HEIGHT)
