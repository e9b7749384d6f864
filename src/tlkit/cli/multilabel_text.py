"""Prints scores where an image may have several labels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from tlkit.cli.console import say, table
from tlkit.utils.formatting import format_duration, shortlist

if TYPE_CHECKING:
    from tlkit.evaluation.multilabel import Estimate, LabelScores, MultilabelScores
    from tlkit.experiment.results import Results

PHASE_COLUMNS = ("phase", "mAP>", "95% interval", "macro F1>", "micro F1>", "best epoch>", "time>")
CLASS_COLUMNS = ("class", "images>", "AP>", "precision>", "recall>", "F1>")


def with_interval(estimate: Estimate) -> str:
    """Formats a score with its 95% interval, such as ``0.952 (0.946–0.958)``."""
    return f"{estimate.value:.3f} ({_interval(estimate)})"


def print_multilabel_results(results: Results) -> None:
    """Prints a run's results: a table of its phases, and one of the last phase's classes."""
    taken = [result for result in results.phases if result.is_taken]
    rows = []
    for result in taken:
        if result.multilabel is None:
            continue
        scores = result.multilabel.measured
        rows.append(
            (
                result.name,
                f"{scores.mean_average_precision.value:.3f}",
                _interval(scores.mean_average_precision),
                f"{scores.macro_f1.value:.3f}",
                f"{scores.micro_f1.value:.3f}",
                f"{result.best_epoch} of {result.epochs}" if result.epochs else "–",
                format_duration(result.seconds.total),
            )
        )
    table(f"Mean average precision on {taken[-1].describe_measurement()}", PHASE_COLUMNS, rows)
    for result in results.phases:
        if result.fitted:
            say(f"{result.name} chose: {result.fitted}", hanging=2)
        if result.decision:
            say(f"{result.name} was {result.decision.describe()}", hanging=2)
    last = results.phases[-1]
    if last.multilabel is not None:
        print_multilabel_scores(last.multilabel.measured, f"Classes after {last.name}")
        if last.multilabel.out_of_fold and (untested := last.multilabel.out_of_fold.untested):
            say(f"Trained on in every fold, since they cannot be divided: {shortlist(untested)}.")
    if results.data.about:
        say(f"The images are {results.data.about}.")
    if results.goal is not None and results.goal_met is not None:
        met = "met" if results.goal_met else "missed"
        say(f"The goal of {results.goal:.2f} is {met}: {last.headline:.3f} after {last.name}.")


def print_multilabel_scores(scores: MultilabelScores, title: str | None = None) -> None:
    """Prints the scores of each class, with the threshold that they are at, and of all."""
    from tlkit.evaluation.multilabel import MultilabelOutOfFold

    rows = _class_rows(scores.per_class)
    if isinstance(scores, MultilabelOutOfFold):
        table(title, CLASS_COLUMNS, rows)
        say("Precision, recall and F1 are at thresholds that were chosen on the other folds.", hanging=2)
    else:
        thresholds = [f"{of_class.threshold:.2f}" for of_class in scores.per_class.values()]
        with_thresholds = [(*row, threshold) for row, threshold in zip(rows, thresholds, strict=True)]
        table(title, (*CLASS_COLUMNS, "threshold>"), with_thresholds)
    precision = with_interval(scores.mean_average_precision)
    say(f"mean average precision {precision}, by chance {scores.chance:.3f}", hanging=2)
    say(f"macro F1 {with_interval(scores.macro_f1)}, micro F1 {with_interval(scores.micro_f1)}", hanging=2)
    if missing := [name for name, of_class in scores.per_class.items() if not of_class.positives]:
        say(f"In none of these images, and not scored: {shortlist(missing)}.")


def _class_rows(per_class: Mapping[str, LabelScores]) -> list[tuple[str, ...]]:
    return [
        (
            name,
            f"{scores.positives:,}",
            *map(_score, (scores.average_precision, scores.precision, scores.recall, scores.f1)),
        )
        for name, scores in per_class.items()
    ]


def _interval(estimate: Estimate) -> str:
    low, high = estimate.ci95
    return f"{low:.3f}–{high:.3f}"


def _score(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
