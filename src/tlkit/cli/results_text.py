"""Prints results, evaluations and comparisons."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tlkit.cli.console import say, table
from tlkit.cli.multilabel_text import print_multilabel_results
from tlkit.utils.formatting import format_duration, format_p_value, printable, shortlist

if TYPE_CHECKING:
    from tlkit.evaluation.metrics import Baselines, Scores
    from tlkit.experiment.results import PhaseResult, Results
    from tlkit.inference.prediction import Evaluation, Mistake
    from tlkit.reporting.compare import ComparedPair, Comparison

#: How many pairs of confused classes an evaluation lists.
CONFUSIONS_SHOWN = 10
CLASS_COLUMNS = ("class", "images>", "precision>", "recall>", "f1>")
PAIR_COLUMNS = ("run", "against", "only first correct>", "only second correct>", "McNemar")
#: Of more classes than this, results say how often the label is among the five most probable ones.
MANY_CLASSES = 20
#: How many keys a comparison lists in which recipes differ; its page has all.
DIFFERENCES_SHOWN = 20


def accuracy_with_interval(scores: Scores) -> str:
    """Formats an accuracy with its 95% interval, such as ``0.952 (0.946–0.958)``."""
    return f"{scores.accuracy:.3f} ({_interval(scores)})"


def print_results(results: Results) -> None:
    """Prints a run's results: a table of its phases, 80 columns wide, and below it what they mean."""
    from tlkit.experiment.results import describe_gains, describe_gains_correction

    if results.baselines is None:
        print_multilabel_results(results)
        return
    last, gains = results.phases[-1], describe_gains(results.phases)
    inequality = last.measured.describe_inequality(results.classes)
    # one that was not taken has the weights, and the scores, of the one before
    taken = [result for result in results.phases if result.is_taken]
    _print_phases(taken, balanced=bool(inequality))
    for result in results.phases:
        if result.epochs and result.best_value is not None and result.monitor != "accuracy":
            weights = (
                f"epoch {result.best_epoch}" if result.best_epoch else "the weights that it started from"
            )
            score = f"{result.monitor.replace('_', ' ')} {result.best_value:.3f}"
            say(f"{result.name} kept {weights}: {score} on the validation images", hanging=2)
        if result.fitted:
            say(f"{result.name} chose: {result.fitted}", hanging=2)
        if result.decision:
            say(f"{result.name} was {result.decision.describe()}", hanging=2)
        elif result.versus:
            say(f"{result.name}: {gains[result.name][0]}")
    correction = describe_gains_correction(results.phases)
    if correction and any(result.versus and not result.decision for result in results.phases):
        say(f"p-values are {correction} of phases.")
    if deviations := _describe_folds(taken):
        say(deviations, hanging=2)
    if len(results.classes) > MANY_CLASSES:
        shares = [f"{result.name} {result.measured.top5:.3f}" for result in taken]
        say(f"Label among the five most probable classes: {', '.join(shares)}.", hanging=2)
    if last.out_of_fold and (untested := last.out_of_fold.untested):
        say(f"Trained on in every fold, since they cannot be divided, and not tested: {shortlist(untested)}.")
    say(_describe_baselines(results.baselines))
    if inequality:
        say(inequality)
        scores = f"{last.measured.balanced_accuracy:.3f} (macro F1 {last.measured.macro_f1:.3f})"
        say(f"Look at balanced accuracy, which counts them equally: {scores}.")
    if results.data.about:
        say(f"The images are {results.data.about}.")
    if results.data.corrections:
        say(f"{results.data.corrections}.", hanging=2)
    if results.goal is not None and results.goal_met is not None:
        met = "met" if results.goal_met else "missed"
        say(f"The goal of {results.goal:.2f} is {met}: {last.measured.accuracy:.3f} after {last.name}.")


def print_evaluation(evaluation: Evaluation) -> None:
    """Prints a classifier's scores: accuracy and the baselines, per class, and which classes are confused."""
    correct = f"{evaluation.correct:,} of {evaluation.n:,}"
    say(f"accuracy {accuracy_with_interval(evaluation)}: {correct}")
    say(f"balanced accuracy {evaluation.balanced_accuracy:.3f}, macro F1 {evaluation.macro_f1:.3f}")
    if evaluation.top5 is not None:
        say(f"label among the five most probable classes {evaluation.top5:.3f}")
    auroc = "" if evaluation.auroc is None else f", area under the ROC curve {evaluation.auroc:.4f}"
    say(f"log loss {evaluation.log_loss:.4f}{auroc}")
    low, high = evaluation.ece_ci95
    say(f"calibration error {evaluation.ece:.3f} ({low:.3f}–{high:.3f})")
    if (rejected := evaluation.rejected) is not None:
        others = rejected.accuracy_of_others
        accuracy = "" if others is None else f"; {others:.3f} of the others are correct"
        say(f"unclassified below {rejected.below:g}: {rejected.n:,}{accuracy}")
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
    for label, predicted, count in evaluation.most_confused(CONFUSIONS_SHOWN):
        say(f"{count:,} of {names[label]} predicted as {names[predicted]}")


def print_mistakes(mistakes: Sequence[Mistake]) -> None:
    """Prints a line for each image that is not predicted correctly; paths are not wrapped."""
    if not mistakes:
        say("No mistakes: every image is predicted correctly.")
    for mistake in mistakes:
        say(
            f"{printable(mistake.image)}: {mistake.label}, predicted as {mistake.predicted} "
            f"({mistake.confidence:.1%})"
        )


def print_comparison(comparison: Comparison) -> None:
    """Prints a comparison of runs: accuracies, pairs, how the recipes differ, and which run is best."""
    if comparison.pairs:
        say(f"Compared on {comparison.images}.")
    else:
        say("Not compared: each run on its own test images, or images out of fold.")
    _print_compared_runs(comparison)
    if comparison.pairs:
        correction = f": p, {comparison.correction}" if comparison.correction else ""
        table(f"Pair by pair{correction}", PAIR_COLUMNS, [_pair_row(pair) for pair in comparison.pairs])
    differences = comparison.differences
    if differences:
        rows = [
            (difference.key, *(value or "–" for value in difference.values))
            for difference in differences[:DIFFERENCES_SHOWN]
        ]
        table("How the recipes differ", ("key", *(run.name for run in comparison.runs)), rows)
        if len(differences) > DIFFERENCES_SHOWN:
            say(f"and {len(differences) - DIFFERENCES_SHOWN} more keys, which the page lists")
    else:
        say("The recipes do not differ.")
    for warning in comparison.warnings:
        say(warning)
    say(f"{comparison.headline}.")
    if not comparison.pairs:
        say("Use --images FOLDER to name images for every run to predict.")


def _print_compared_runs(comparison: Comparison) -> None:
    """Prints two tables, each 80 columns wide."""
    runs = comparison.runs
    names = {"run": [run.name for run in runs]}
    scores = {
        "phase": [run.phase for run in runs],
        "accuracy>": [f"{run.test.accuracy:.3f}" for run in runs],
        "95% interval": [_interval(run.test) for run in runs],
        "balanced>": [f"{run.test.balanced_accuracy:.3f}" for run in runs],
        "macro F1>": [f"{run.test.macro_f1:.3f}" for run in runs],
    }
    others = {"images>": [f"{run.test.n:,}" for run in runs]}
    if comparison.has_own_images:
        others["on its own>"] = [f"{run.own.accuracy:.3f} of {run.own.n:,}" for run in runs]
    if any(run.spreads for run in runs):
        others["spread"] = [run.describe_spread() for run in runs]
    others["time>"] = [format_duration(run.seconds.total) for run in runs]
    for title, columns in (("Accuracy", names | scores), ("Images, spread and time", names | others)):
        table(title, list(columns), zip(*columns.values(), strict=True))


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


def _describe_folds(results: Sequence[PhaseResult]) -> str:
    """Describes how much the folds of a cross-validation differ; nothing without one."""
    deviations = [
        f"{result.name} {result.out_of_fold.fold_deviation:.3f}"
        for result in results
        if result.out_of_fold and result.out_of_fold.fold_deviation is not None
    ]
    return f"Standard deviation of the folds' accuracies: {', '.join(deviations)}." if deviations else ""


def _describe_baselines(baselines: Baselines) -> str:
    majority = f"{baselines.majority:.3f} by always predicting {baselines.majority_class}"
    return f"Baselines: {baselines.chance:.3f} by chance, {majority}."


def _pair_row(pair: ComparedPair) -> tuple[str, ...]:
    return (pair.first, pair.second, f"{pair.lost:,}", f"{pair.gained:,}", format_p_value(pair.p_holm))


def _interval(scores: Scores) -> str:
    low, high = scores.ci95
    return f"{low:.3f}–{high:.3f}"


def _score(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
