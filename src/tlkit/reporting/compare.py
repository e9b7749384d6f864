"""Several runs on one page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from pathlib import Path

import numpy as np

from tlkit.errors import RunFolderError
from tlkit.evaluation.intervals import independent_images
from tlkit.evaluation.metrics import TestScores, evaluate
from tlkit.evaluation.significance import McNemar, describe_correction, holm, least_images, mcnemar
from tlkit.experiment.observer import Observer
from tlkit.experiment.record import PhaseRecord, RunRecord, SplitPredictions
from tlkit.experiment.results import PhaseResult, PhaseSeconds
from tlkit.plugins.loader import load_registry
from tlkit.plugins.registry import Registry
from tlkit.recipe.task import require_one_label
from tlkit.reporting import run_charts
from tlkit.reporting.compared_images import ComparedImages, predict_folder, shared_images
from tlkit.reporting.compared_recipes import RecipeDifference, Spread, recipe_differences, repetitions
from tlkit.reporting.pictures import Album, Picture
from tlkit.reporting.render import render, replaced_when_complete
from tlkit.utils.formatting import shortlist
from tlkit.utils.sequences import as_list

#: A difference with a corrected p-value below this counts as significant.
SIGNIFICANCE_LEVEL = 0.05


@dataclass(frozen=True)
class ComparedRun:
    """A run in a comparison.

    Attributes:
        name: the end of its folder's path, as long as it takes to tell the runs apart.
        phase: the phase that trained its classifier: the last one, unless that was not taken.
        test: that phase's scores on the images that all runs are compared on; `own` where these are too few.
        own: its scores on the run's own test images, or else out of fold.
        spreads: how much its accuracy varies over the seeds of its recipe, and over folds.
        seconds: durations of all its phases together.
        trainable: number of trainable parameters in that phase.
        train: number of training images.
        machine: operating system, architecture and device; empty if unknown.
    """

    name: str
    phase: str
    test: TestScores
    own: TestScores
    spreads: tuple[Spread, ...]
    seconds: PhaseSeconds
    trainable: int
    train: int
    machine: str

    def describe_spread(self) -> str:
        """Describes the spread, such as "±0.011 over 3 seeds"; a dash without one."""
        return ", ".join(spread.describe() for spread in self.spreads) or "–"


@dataclass(frozen=True)
class ComparedPair:
    """Two runs on the images that all runs are compared on: McNemar's exact test.

    Attributes:
        first: name of the first run.
        second: name of the second run.
        n: number of images.
        gained: number of images that only the second predicts correctly.
        lost: number of images that only the first predicts correctly.
        p: the test's p-value.
        p_holm: the p-value, corrected for the number of pairs.
    """

    first: str
    second: str
    n: int
    gained: int
    lost: int
    p: float
    p_holm: float


@dataclass(frozen=True)
class Comparison:
    """Runs side by side.

    Attributes:
        runs: the runs, in the order in which they were named.
        images: what they are compared on, such as "360 test images that all 3 runs share".
        pairs: every pair of them; none if the images are too few for any test.
        correction: how the p-values were corrected; empty for a single pair.
        differences: the keys in which their recipes differ.
        headline: which run is best, or why that cannot be said.
        warnings: what speaks against the comparison.
        page: the path of the page.
    """

    runs: list[ComparedRun]
    images: str
    pairs: list[ComparedPair]
    correction: str
    differences: list[RecipeDifference]
    headline: str
    warnings: list[str]
    page: Path

    @property
    def has_own_images(self) -> bool:
        """Whether runs have test images, or images out of fold, that others do not share."""
        return bool(self.pairs) and any(run.own.n != run.test.n for run in self.runs)


@dataclass(frozen=True)
class ComparisonPage:
    """The content of compare.html, from top to bottom.

    Attributes:
        comparison: the comparison.
        labels: sentences about the images that every reader should know.
        accuracies: chart of all runs.
        curves: validation accuracy per epoch, or None if no run trained.
    """

    comparison: Comparison
    labels: list[str]
    accuracies: Picture
    curves: Picture | None


def compare(
    runs: Sequence[Path | str],
    out: Path | str,
    *,
    images: Path | str | None = None,
    device: str | None = None,
    observer: Observer | None = None,
    registry: Registry | None = None,
) -> Comparison:
    """Compares the classifiers of runs on the same images, and writes a page, ``compare.html``.

    Unless `images` are given, these are the test images (or images out of fold) that all runs share, by the
    content of their files. If they are too few for any test to be significant, no run is called best.

    Args:
        runs: run folders, two or more.
        out: the folder to write; an existing comparison is replaced.
        images: a folder of class folders, or a CSV file with path and label: every run predicts them.
        device: such as "cpu" or "cuda:1", for `images`; the best one unless given.
        observer: watches.
        registry: the parts to choose from; all that is installed unless given.

    Raises:
        RunFolderError: one is not a run folder or has finished no phase, or `out` contains other files.
        DataError: `images` cannot be predicted by all runs.
        ReportError: the page cannot be written.
    """
    runs = as_list(runs)
    if len(runs) < 2:
        raise RunFolderError("a comparison needs at least two runs")
    page = Path(out) / "compare.html"
    _check_folder(page)
    records = [RunRecord(Path(run)) for run in runs]
    for record in records:
        require_one_label(record.recipe, "tlkit compare")
    names = _distinct_names([record.folder for record in records])
    phases = [_final_phase(record) for record in records]
    if images is None:
        compared = shared_images(records, phases)
    else:
        compared = predict_folder(
            records,
            phases,
            Path(images),
            registry=registry or load_registry(),
            device=device,
            observer=observer or Observer(),
        )
    comparison = _compare(names, records, phases, compared, page, on_own_images=images is None)
    _write_page(page, comparison, records, phases)
    return comparison


def _write_page(
    page: Path, comparison: Comparison, records: Sequence[RunRecord], phases: Sequence[PhaseRecord]
) -> None:
    about = [record.data.about for record in records if record.data is not None]
    names = [run.name for run in comparison.runs]
    with replaced_when_complete(page) as unfinished:
        content = ComparisonPage(
            comparison=comparison,
            labels=[
                *comparison.warnings,
                *dict.fromkeys(f"The images are {text}." for text in about if text),
            ],
            accuracies=_draw_accuracies(comparison.runs, unfinished.album),
            curves=_draw_curves(dict(zip(names, phases, strict=True)), unfinished.album),
        )
        unfinished.file.write_text(render("compare.html", content), encoding="utf-8")


def _compare(
    names: Sequence[str],
    records: Sequence[RunRecord],
    phases: Sequence[PhaseRecord],
    images: ComparedImages,
    page: Path,
    *,
    on_own_images: bool,
) -> Comparison:
    """Compares runs; `on_own_images` says that the predictions are those that the runs were measured by."""
    comparisons = len(names) * (len(names) - 1) // 2
    least = least_images(comparisons, SIGNIFICANCE_LEVEL)
    is_enough = images.count >= least
    results = [phase.result for phase in phases if phase.result is not None]
    scores = own = [result.measured for result in results]
    if is_enough:
        scores = [
            _evaluate(predictions, result if on_own_images else None)
            for predictions, result in zip(images.predictions, results, strict=True)
        ]
    recipes = [record.recipe for record in records]
    groups = repetitions(recipes)
    spreads = _spreads(results, own if on_own_images else scores, groups)
    runs = [_compared_run(*columns) for columns in zip(names, records, results, scores, spreads, strict=True)]
    pairs = _compared_pairs(names, images.predictions) if is_enough else []
    warnings = [
        f"{name} was trained or validated on {count:,} of the images: its accuracy on them is too high."
        for name, count in zip(names, images.seen, strict=True)
        if count
    ]
    if not is_enough:
        headline = f"No winner: {images.description} are too few for any test, which takes {least} or more"
    elif warnings:
        headline = f"No winner: not all of the {images.description} are new to every run"
    elif groups and len(groups[0]) == len(runs):
        spread = spreads[0][0]
        headline = f"One recipe with {spread.count} seeds: accuracy {spread.mean:.3f} {spread.describe()}"
    else:
        headline = _headline(runs, pairs)
    return Comparison(
        runs=runs,
        images=images.description,
        pairs=pairs,
        correction=describe_correction(len(pairs)),
        differences=recipe_differences(recipes),
        headline=headline,
        warnings=warnings,
        page=page,
    )


def _headline(runs: Sequence[ComparedRun], pairs: Sequence[ComparedPair]) -> str:
    """Says which run is best, and whether that is significant."""
    best = max(runs, key=lambda run: run.test.accuracy)
    accuracy = f"{100 * best.test.accuracy:.1f}% of {best.test.n:,} images"
    equal = [run.name for run in runs if run.test.correct == best.test.correct]
    if len(equal) > 1:
        return f"No winner: {shortlist(equal)} are equally accurate, {accuracy}"
    own_pairs = [pair for pair in pairs if best.name in (pair.first, pair.second)]
    if all(pair.p_holm < SIGNIFICANCE_LEVEL for pair in own_pairs):
        return f"{best.name} is the most accurate, significantly: {accuracy}"
    return f"{best.name} is the most accurate, {accuracy}, but not significantly against every other run"


def _evaluate(predictions: SplitPredictions, result: PhaseResult | None) -> TestScores:
    """Scores predictions; those that a run was measured by may be out of fold, which are not independent."""
    independent = None
    if result is not None and result.test is None and result.out_of_fold is not None:
        independent = independent_images(len(predictions.ids))
    return evaluate(predictions.probabilities.astype(np.float64), predictions.labels, independent=independent)


def _spreads(
    results: Sequence[PhaseResult], scores: Sequence[TestScores], groups: Sequence[Sequence[int]]
) -> list[tuple[Spread, ...]]:
    """Returns each run's spreads: over the seeds of its recipe, of these scores, and over its folds."""
    over_seeds = {
        position: Spread.of([scores[member].accuracy for member in group], "seeds")
        for group in groups
        for position in group
    }
    spreads = []
    for position, result in enumerate(results):
        out_of_fold = result.out_of_fold
        over_folds = Spread.of(out_of_fold.fold_accuracies, "folds") if out_of_fold else None
        both = (over_seeds.get(position), over_folds)
        spreads.append(tuple(spread for spread in both if spread is not None))
    return spreads


def _compared_pairs(names: Sequence[str], predictions: Sequence[SplitPredictions]) -> list[ComparedPair]:
    correct = {name: rows.correct for name, rows in zip(names, predictions, strict=True)}
    tests: dict[tuple[str, str], McNemar] = {
        (first, second): mcnemar(correct[first], correct[second]) for first, second in combinations(names, 2)
    }
    corrected = holm([test.p for test in tests.values()])
    return [
        ComparedPair(first, second, len(correct[first]), test.gained, test.lost, test.p, p_holm)
        for ((first, second), test), p_holm in zip(tests.items(), corrected, strict=True)
    ]


def _check_folder(page: Path) -> None:
    folder = page.parent
    if folder.exists() and (not folder.is_dir() or (any(folder.iterdir()) and not page.is_file())):
        raise RunFolderError(
            f"{folder} is not empty and does not contain a comparison: choose another folder with --out"
        )


def _distinct_names(folders: Sequence[Path]) -> list[str]:
    """Returns as much of each path's end as it takes to tell them apart."""
    parts = [folder.absolute().parts for folder in folders]
    for count in range(1, max(map(len, parts)) + 1):
        names = ["/".join(part[-count:]) for part in parts]
        if len(set(names)) == len(names):
            return names
    raise RunFolderError("the same run is named twice")


def _final_phase(record: RunRecord) -> PhaseRecord:
    if record.final is None:
        raise RunFolderError(f"{record.folder}: this run has finished no phase yet")
    return record.final


def _compared_run(
    name: str, record: RunRecord, final: PhaseResult, test: TestScores, spreads: tuple[Spread, ...]
) -> ComparedRun:
    assert record.data is not None  # a phase has ended
    description = record.description
    seconds = [result.seconds for result in record.phase_results]
    return ComparedRun(
        name=name,
        phase=final.name,
        test=test,
        own=final.measured,
        spreads=spreads,
        seconds=PhaseSeconds(
            total=sum(phase.total for phase in seconds),
            features=sum(phase.features for phase in seconds),
            training=sum(phase.training for phase in seconds),
            evaluation=sum(phase.evaluation for phase in seconds),
        ),
        trainable=final.parameters.trainable,
        train=record.data.train,
        machine=f"{description.machine}, {description.device}" if description else "",
    )


def _draw_accuracies(runs: Sequence[ComparedRun], album: Album) -> Picture:
    tests = {run.name: run.test for run in runs}
    alt = "Accuracies: " + ", ".join(f"{name} {test.accuracy:.3f}" for name, test in tests.items())
    draw = partial(run_charts.accuracies, tests=tests, goal=None)
    return album.chart("accuracies", alt, draw, height=1.3 + 0.45 * len(runs))


def _draw_curves(phases: Mapping[str, PhaseRecord], album: Album) -> Picture | None:
    histories = {name: phase.history for name, phase in phases.items() if phase.history}
    if not histories:
        return None
    draw = partial(run_charts.overlaid, histories=histories)
    return album.chart("curves", "Accuracy on validation per epoch", draw)
