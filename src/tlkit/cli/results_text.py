"""Prints results, evaluations and comparisons."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tlkit.cli.console import say, table
from tlkit.utils.formatting import format_duration, format_p_value, shortlist

if TYPE_CHECKING:
    from tlkit.evaluation.metrics import Baselines, Scores
    from tlkit.experiment.results import PhaseResult, Results
    from tlkit.inference.prediction import Evaluation
    from tlkit.reporting.compare import ComparedPair, ComparedRun, Comparison

#: How many pairs of confused classes an evaluation lists.
CONFUSIONS_SHOWN = 10
CLASS_COLUMNS = ("class", "images>", "precision>", "recall>", "f1>")
RUN_COLUMNS = ("run", "last phase", "images>", "accuracy>", "95% interval", "balanced>", "macro F1>", "time>")
PAIR_COLUMNS = ("run", "against", "common images>", "only first correct>", "only second correct>", "McNemar")


def accuracy_with_interval(scores: Scores) -> str:
    """Formats an accuracy with its 95% interval, such as ``0.952 (0.946–0.958)``."""
    return f"{scores.accuracy:.3f} ({_interval(scores)})"


def print_results(results: Results) -> None:
    """Prints a run's results: a table of its phases, 80 columns wide, and below it what they mean."""
    last = results.phases[-1]
    inequality = last.measured.describe_inequality(results.classes)
    # one that was not taken has the weights, and the scores, of the one before
    taken = [result for result in results.phases if result.is_taken]
    _print_phases(taken, balanced=bool(inequality))
    for result in results.phases:
        if result.epochs and result.best_value is not None and result.monitor != "accuracy":
            kept = f"epoch {result.best_epoch}" if result.best_epoch else "the weights that it started from"
            score = f"{result.monitor.replace('_', ' ')} {result.best_value:.3f}"
            say(f"{result.name} kept {kept}: {score} on the validation images", hanging=2)
        if result.fitted:
            say(f"{result.name} chose: {result.fitted}", hanging=2)
        if result.decision:
            say(f"{result.name} was {result.decision.describe()}", hanging=2)
        elif result.versus:
            say(f"{result.name}: {result.versus[0].describe(result.measured.n)}")
    if last.out_of_fold and (untested := last.out_of_fold.untested):
        say(f"Trained on in every fold, since they cannot be divided, and not tested: {shortlist(untested)}.")
    say(_describe_baselines(results.baselines))
    if inequality:
        say(inequality)
        scores = f"{last.measured.balanced_accuracy:.3f} (macro F1 {last.measured.macro_f1:.3f})"
        say(f"Look at balanced accuracy, which counts them equally: {scores}.")
    if results.data.about:
        say(f"The images are {results.data.about}.")
    if results.goal is not None and results.goal_met is not None:
        met = "met" if results.goal_met else "missed"
        say(f"The goal of {results.goal:.2f} is {met}: {last.measured.accuracy:.3f} after {last.name}.")


def print_evaluation(evaluation: Evaluation) -> None:
    """Prints a classifier's scores: accuracy and the baselines, per class, and which classes are confused."""
    correct = f"{evaluation.correct:,} of {evaluation.n:,}"
    say(f"accuracy {accuracy_with_interval(evaluation)}: {correct}")
    say(f"balanced accuracy {evaluation.balanced_accuracy:.3f}, macro F1 {evaluation.macro_f1:.3f}")
    auroc = "" if evaluation.auroc is None else f", area under the ROC curve {evaluation.auroc:.4f}"
    say(f"log loss {evaluation.log_loss:.4f}, calibration error {evaluation.ece:.4f}{auroc}")
    if (rejected := evaluation.rejected) is not None:
        others = rejected.accuracy_of_others
        rest = "" if others is None else f"; {others:.3f} of the others are correct"
        say(f"unclassified below {rejected.below:g}: {rejected.n:,}{rest}")
    if evaluation.unknown is not None:
        say(f"called unknown: {evaluation.unknown:,}; the scores count them by their most probable class")
    names = list(evaluation.per_class)
    say(_describe_baselines(evaluation.baselines))
    if inequality := evaluation.describe_inequality(names):
        say(f"{inequality} Look at balanced accuracy, which counts them equally.")
    rows = [
        (name, f"{scores.n:,}", *map(_score, (scores.precision, scores.recall, scores.f1)))
        for name, scores in evaluation.per_class.items()
    ]
    table(None, CLASS_COLUMNS, rows)
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
    table("Accuracy on test images or out of fold", RUN_COLUMNS, [_run_row(run) for run in comparison.runs])
    table("Pair by pair", PAIR_COLUMNS, [_pair_row(pair) for pair in comparison.pairs])


def _print_phases(results: Sequence[PhaseResult], *, balanced: bool) -> None:
    columns: dict[str, list[str]] = {
        "phase": [result.name for result in results],
        "accuracy>": [f"{result.measured.accuracy:.3f}" for result in results],
        "95% interval": [_interval(result.measured) for result in results],
    }
    if balanced:
        columns["balanced>"] = [f"{result.measured.balanced_accuracy:.3f}" for result in results]
    columns["best epoch>"] = [
        f"{result.best_epoch} of {result.epochs}" if result.epochs else "–" for result in results
    ]
    columns["time>"] = [format_duration(result.seconds.total) for result in results]
    title = f"Accuracy on {results[-1].describe_measurement()}"
    table(title, list(columns), zip(*columns.values(), strict=True))


def _describe_baselines(baselines: Baselines) -> str:
    majority = f"{baselines.majority:.3f} by always predicting {baselines.majority_class}"
    return f"Baselines: {baselines.chance:.3f} by chance, {majority}."


def _run_row(run: ComparedRun) -> tuple[str, ...]:
    test = run.test
    return (
        run.name,
        run.phase,
        f"{test.n:,}",
        f"{test.accuracy:.3f}",
        _interval(test),
        f"{test.balanced_accuracy:.3f}",
        f"{test.macro_f1:.3f}",
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
    return f"{low:.3f}–{high:.3f}"


def _score(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
