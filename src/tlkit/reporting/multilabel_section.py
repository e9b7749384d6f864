"""The section of a report about several labels per image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from tlkit.evaluation.multilabel import LabelScores, MultilabelOutOfFold, MultilabelScores
from tlkit.experiment.results import PhaseResult
from tlkit.reporting import run_charts
from tlkit.reporting.pictures import Album, Picture

#: With more classes than this, those with the lowest average precision are listed.
MAX_CLASSES = 100


@dataclass(frozen=True)
class MultilabelSection:
    """How well the phases tell several labels per image.

    Attributes:
        phases: each phase that has ended, and its scores.
        scores: those of the last phase.
        measured_on: what they were computed on.
        described: the same with numbers.
        thresholds_from: what the thresholds were chosen on.
        has_thresholds: whether the scores of the classes are at the classifier's own thresholds.
        per_class: the classes and their scores, of many those with the lowest average precision.
        missing: the classes that no image has of those that scores were computed on.
        chart: mean average precision of all phases.
    """

    phases: Sequence[tuple[PhaseResult, MultilabelScores]]
    scores: MultilabelScores
    measured_on: str
    described: str
    thresholds_from: str
    has_thresholds: bool
    per_class: Sequence[tuple[str, LabelScores]]
    missing: Sequence[str]
    chart: Picture


def make_multilabel_section(
    results: Sequence[PhaseResult], goal: float | None, album: Album
) -> MultilabelSection | None:
    """Makes the section; None before the first phase has ended, or where images have one label."""
    phases = [(result, result.multilabel.measured) for result in results if result.multilabel is not None]
    if not phases:
        return None
    last, scores = phases[-1]
    estimates = {result.name: measured.mean_average_precision for result, measured in phases}
    values = ", ".join(f"{name} {estimate.value:.3f}" for name, estimate in estimates.items())
    draw = partial(run_charts.mean_average_precisions, estimates=estimates, goal=goal)
    chart = album.chart(
        "mean-average-precision",
        f"Mean average precision on {last.measured_on}: {values}",
        draw,
        width=5.2,
        height=1.3 + 0.45 * len(phases),
    )
    per_class = list(scores.per_class.items())
    if len(per_class) > MAX_CLASSES:
        per_class = sorted(per_class, key=lambda row: row[1].average_precision or 0.0)[:MAX_CLASSES]
    return MultilabelSection(
        phases=phases,
        scores=scores,
        measured_on=last.measured_on,
        described=last.describe_measurement(),
        thresholds_from=last.multilabel.chosen_on if last.multilabel else "",
        has_thresholds=not isinstance(scores, MultilabelOutOfFold),
        per_class=per_class,
        missing=[name for name, of_class in scores.per_class.items() if not of_class.positives],
        chart=chart,
    )
