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
    """The scores of phases that predict several labels per image.

    Attributes:
        phase: the name of the phase that trained the classifier.
        phases: each phase that was taken, and its scores.
        scores: the classifier's.
        measured_on: what they were computed on.
        described: the same with numbers.
        thresholds_from: what the thresholds were chosen on.
        has_thresholds: whether the scores of the classes are at the classifier's own thresholds.
        per_class: the classes and their scores, of many those with the lowest average precision.
        missing: the classes that no image has of those that scores were computed on.
        chart: mean average precision of all phases.
    """

    phase: str
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
    final: PhaseResult | None, results: Sequence[PhaseResult], goal: float | None, album: Album
) -> MultilabelSection | None:
    """Makes the section; None before the first phase has ended, or where images have one label.

    Args:
        final: the result of the phase that trained the classifier.
        results: results of the phases that were taken.
        goal: mean average precision that the classifier must reach, or None.
        album: where the chart goes.
    """
    if final is None or final.multilabel is None:
        return None
    phases = [(result, result.multilabel.measured) for result in results if result.multilabel is not None]
    scores = final.multilabel.measured
    estimates = {result.name: measured.mean_average_precision for result, measured in phases}
    values = ", ".join(f"{name} {estimate.value:.3f}" for name, estimate in estimates.items())
    draw = partial(run_charts.mean_average_precisions, estimates=estimates, goal=goal)
    chart = album.chart(
        "mean-average-precision",
        f"Mean average precision on {final.measured_on}: {values}",
        draw,
        width=5.2,
        height=1.3 + 0.45 * len(phases),
    )
    per_class = list(scores.per_class.items())
    if len(per_class) > MAX_CLASSES:
        per_class = sorted(per_class, key=lambda row: row[1].average_precision or 0.0)[:MAX_CLASSES]
    return MultilabelSection(
        phase=final.name,
        phases=phases,
        scores=scores,
        measured_on=final.measured_on,
        described=final.describe_measurement(),
        thresholds_from=final.multilabel.chosen_on,
        has_thresholds=not isinstance(scores, MultilabelOutOfFold),
        per_class=per_class,
        missing=[name for name, of_class in scores.per_class.items() if not of_class.positives],
        chart=chart,
    )
