"""Prints results, evaluations and comparisons."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tlkit.cli.console import say, table
from tlkit.utils.formatting import format_duration, format_p_value

if TYPE_CHECKING:
    from tlkit.evaluation.metrics import Scores
    from tlkit.experiment.results import PhaseResult, Results
    from tlkit.inference.predictor import Evaluation
    from tlkit.reporting.compare import ComparedPair, ComparedRun, Comparison

#: How many pairs of confused classes an evaluation lists.
CONFUSIONS_SHOWN = 10
RESULT_COLUMNS = ("phase", "accuracy>", "95% interval", "correct>", "gain", "best epoch>", "seconds>")
CLASS_COLUMNS = ("class", "images>", "precision>", "recall>", "f1>")
RUN_COLUMNS = ("run", "last phase", "accuracy>", "95% interval", "correct>", "took>")
PAIR_COLUMNS = ("run", "against", "common images>", "only first correct>", "only second correct>", "McNemar")


def accuracy_with_interval(scores: Scores) -> str:
    """Formats an accuracy with its 95% interval, such as ``0.952 (0.946 – 0.958)``."""
    return f"{scores.accuracy:.3f} ({_interval(scores)})"


def print_results(results: Results) -> None:
    """Prints a run's results: per phase the accuracy, the gain over the phase before, and the time."""
    table("Accuracy on the test images", RESULT_COLUMNS, [_result_row(result) for result in results.phases])
    if results.data.about:
        say(f"The images are {results.data.about}.")
    if results.goal is not None and results.goal_met is not None:
        met = "met" if results.goal_met else "missed"
        last = results.phases[-1]
        say(f"The goal of {results.goal:.2f} is {met}: {last.test.accuracy:.3f} after {last.name}.")


def print_evaluation(evaluation: Evaluation) -> None:
    """Prints a classifier's scores: accuracy with its interval, per class, and which classes are confused."""
    correct = f"{evaluation.correct:,} of {evaluation.n:,}"
    say(f"accuracy {accuracy_with_interval(evaluation)}: {correct}")
    auroc = "" if evaluation.auroc is None else f", area under the ROC curve {evaluation.auroc:.4f}"
    say(f"log loss {evaluation.log_loss:.4f}, calibration error {evaluation.ece:.4f}{auroc}")
    if (rejected := evaluation.rejected) is not None:
        others = rejected.accuracy_of_others
        rest = "" if others is None else f"; {others:.3f} of the others are correct"
        say(f"unclassified below {rejected.below:g}: {rejected.n:,}{rest}")
    rows = [
        (name, f"{scores.n:,}", *map(_score, (scores.precision, scores.recall, scores.f1)))
        for name, scores in evaluation.per_class.items()
    ]
    table(None, CLASS_COLUMNS, rows)
    names = list(evaluation.per_class)
    confusions = [
        (count, names[label], names[predicted])
        for label, row in enumerate(evaluation.confusion)
        for predicted, count in enumerate(row)
        if count and label != predicted
    ]
    for count, name, predicted_name in sorted(confusions, reverse=True)[:CONFUSIONS_SHOWN]:
        say(f"{count:,} of {name} predicted as {predicted_name}")


def print_comparison(comparison: Comparison) -> None:
    """Prints a comparison of runs: each run's accuracy, then each pair's difference."""
    table("Accuracy on the test images", RUN_COLUMNS, [_run_row(run) for run in comparison.runs])
    table("Pair by pair", PAIR_COLUMNS, [_pair_row(pair) for pair in comparison.pairs])


def _result_row(result: PhaseResult) -> tuple[str, ...]:
    test = result.test
    by = "" if result.monitor == "accuracy" else f" by {result.monitor.replace('_', ' ')}"
    return (
        result.name,
        f"{test.accuracy:.3f}",
        _interval(test),
        f"{test.correct:,} of {test.n:,}",
        result.versus[0].describe(test.n) if result.versus else "",
        f"{result.best_epoch} of {result.epochs}{by}" if result.epochs else "–",
        f"{result.seconds.total:,.0f}",
    )


def _run_row(run: ComparedRun) -> tuple[str, ...]:
    test = run.test
    return (
        run.name,
        run.phase,
        f"{test.accuracy:.3f}",
        _interval(test),
        f"{test.correct:,} of {test.n:,}",
        format_duration(run.seconds.total),
    )


def _pair_row(pair: ComparedPair) -> tuple[str, ...]:
    return (
        pair.first,
        pair.second,
        f"{pair.n:,}",
        f"{pair.lost:,}",
        f"{pair.gained:,}",
        format_p_value(pair.p) if pair.n else "not comparable",
    )


def _interval(scores: Scores) -> str:
    low, high = scores.ci95
    return f"{low:.3f} – {high:.3f}"


def _score(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
