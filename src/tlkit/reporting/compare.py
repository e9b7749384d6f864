"""Several runs on one page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from pathlib import Path

import numpy as np

from tlkit.errors import RunFolderError
from tlkit.evaluation.metrics import TestScores
from tlkit.evaluation.significance import mcnemar
from tlkit.experiment.record import PhaseRecord, RunRecord
from tlkit.experiment.results import PhaseSeconds
from tlkit.reporting import run_charts
from tlkit.reporting.pictures import Album, Picture
from tlkit.reporting.render import render, replaced_when_complete

#: A difference with a p-value below this counts as significant.
SIGNIFICANCE_LEVEL = 0.05

#: What identifies a test image across runs: the checksum of its file, and its label.
ImageKey = tuple[str, str | None]


@dataclass(frozen=True)
class ComparedRun:
    """A run in a comparison.

    Attributes:
        name: the end of its folder's path, as long as it takes to tell the runs apart.
        phase: its last finished phase.
        test: that phase's scores on the test images.
        seconds: durations of all its phases together.
        trainable: number of trainable parameters in that phase.
        train: number of training images.
        machine: operating system, architecture and device; empty if unknown.
    """

    name: str
    phase: str
    test: TestScores
    seconds: PhaseSeconds
    trainable: int
    train: int
    machine: str


@dataclass(frozen=True)
class ComparedPair:
    """Two runs on the test images that both have: McNemar's exact test.

    Attributes:
        first: name of the first run.
        second: name of the second run.
        n: number of test images in common.
        gained: number of images that only the second predicts correctly.
        lost: number of images that only the first predicts correctly.
        p: the test's p-value.
    """

    first: str
    second: str
    n: int
    gained: int
    lost: int
    p: float


@dataclass(frozen=True)
class Comparison:
    """Runs side by side.

    Attributes:
        runs: the runs, in the order in which they were named.
        pairs: every pair of them.
        page: the path of the page.
    """

    runs: list[ComparedRun]
    pairs: list[ComparedPair]
    page: Path


@dataclass(frozen=True)
class ComparisonPage:
    """The content of compare.html, from top to bottom.

    Attributes:
        headline: which run is best.
        labels: sentences about the images that every reader should know.
        accuracies: chart of all runs.
        runs: the runs.
        pairs: every pair of them.
        curves: validation accuracy per epoch, or None if no run trained.
    """

    headline: str
    labels: list[str]
    accuracies: Picture
    runs: list[ComparedRun]
    pairs: list[ComparedPair]
    curves: Picture | None


def compare(runs: Sequence[Path | str], out: Path | str) -> Comparison:
    """Compares the last finished phases of runs, and writes a page about it, ``compare.html``.

    Two runs are compared on the test images that both have, by the content of their files.

    Args:
        runs: run folders, two or more.
        out: the folder to write; an existing comparison is replaced.

    Raises:
        RunFolderError: one is not a run folder or has finished no phase, or `out` contains other files.
        ReportError: the page cannot be written.
    """
    if len(runs) < 2:
        raise RunFolderError("a comparison needs two runs or more")
    page = Path(out) / "compare.html"
    _check_folder(page)
    records = [RunRecord(Path(run)) for run in runs]
    names = _distinct_names([record.folder for record in records])
    phases = [_last_phase(record) for record in records]
    rows = [
        _compared_run(name, record, phase) for name, record, phase in zip(names, records, phases, strict=True)
    ]
    correct = {
        name: _correct_images(record, phase)
        for name, record, phase in zip(names, records, phases, strict=True)
    }
    pairs = [_compared_pair(first, second, correct) for first, second in combinations(names, 2)]
    about = [record.data.about for record in records if record.data is not None]
    with replaced_when_complete(page) as unfinished:
        content = ComparisonPage(
            headline=_headline(rows, pairs),
            labels=list(dict.fromkeys(f"The images are {text}." for text in about if text)),
            accuracies=_draw_accuracies(rows, unfinished.album),
            runs=rows,
            pairs=pairs,
            curves=_draw_curves(dict(zip(names, phases, strict=True)), unfinished.album),
        )
        unfinished.file.write_text(render("compare.html", content), encoding="utf-8")
    return Comparison(rows, pairs, page)


def _check_folder(page: Path) -> None:
    folder = page.parent
    if folder.exists() and (not folder.is_dir() or (any(folder.iterdir()) and not page.is_file())):
        raise RunFolderError(
            f"{folder} is not empty and does not contain a comparison: choose another folder with --out"
        )


def _headline(runs: Sequence[ComparedRun], pairs: Sequence[ComparedPair]) -> str:
    """Says which run is best, and whether that is significant."""
    if any(pair.n == 0 for pair in pairs):
        return "Not all runs were tested on the same images: their accuracies say little about which is best"
    best = max(runs, key=lambda run: run.test.accuracy)
    accuracy = f"{100 * best.test.accuracy:.1f}% of {best.test.n:,} images"
    own_pairs = [pair for pair in pairs if best.name in (pair.first, pair.second)]
    if all(pair.p < SIGNIFICANCE_LEVEL for pair in own_pairs):
        return f"{best.name} is the most accurate, significantly: {accuracy}"
    return f"{best.name} is the most accurate, {accuracy}, but not significantly against every other run"


def _distinct_names(folders: Sequence[Path]) -> list[str]:
    """Returns as much of each path's end as it takes to tell them apart."""
    parts = [folder.absolute().parts for folder in folders]
    for count in range(1, max(map(len, parts)) + 1):
        names = ["/".join(part[-count:]) for part in parts]
        if len(set(names)) == len(names):
            return names
    raise RunFolderError("the same run is named twice")


def _last_phase(record: RunRecord) -> PhaseRecord:
    if not record.done:
        raise RunFolderError(f"{record.folder}: this run has finished no phase yet")
    return record.done[-1]


def _compared_run(name: str, record: RunRecord, last: PhaseRecord) -> ComparedRun:
    assert last.result is not None and record.data is not None  # it has ended
    seconds = [result.seconds for result in record.phase_results]
    description = record.description
    return ComparedRun(
        name=name,
        phase=last.name,
        test=last.result.measured,
        seconds=PhaseSeconds(
            total=sum(phase.total for phase in seconds),
            features=sum(phase.features for phase in seconds),
            training=sum(phase.training for phase in seconds),
            evaluation=sum(phase.evaluation for phase in seconds),
        ),
        trainable=last.result.parameters.trainable,
        train=record.data.train,
        machine=f"{description.machine}, {description.device}" if description else "",
    )


def _correct_images(record: RunRecord, last: PhaseRecord) -> dict[ImageKey, bool]:
    """Returns for each test image whether the last phase predicts it correctly."""
    predictions = last.measured
    if predictions is None:
        raise RunFolderError(f"{record.folder}: the predictions of phase {last.name} are missing")
    keys = {row.id: (row.sha256, row.label) for row in record.images}
    if not keys.keys() >= set(predictions.ids):
        raise RunFolderError(f"{record.folder}: splits.csv does not list all of the images that it predicts")
    return {
        keys[image_id]: bool(correct)
        for image_id, correct in zip(predictions.ids, predictions.correct, strict=True)
    }


def _compared_pair(first: str, second: str, correct: Mapping[str, Mapping[ImageKey, bool]]) -> ComparedPair:
    common = sorted(correct[first].keys() & correct[second].keys(), key=str)
    test = mcnemar(
        np.array([correct[first][key] for key in common], bool),
        np.array([correct[second][key] for key in common], bool),
    )
    return ComparedPair(first, second, len(common), test.gained, test.lost, test.p)


def _draw_accuracies(runs: Sequence[ComparedRun], album: Album) -> Picture:
    tests = {run.name: run.test for run in runs}
    alt = "Accuracies: " + ", ".join(f"{name} {test.accuracy:.3f}" for name, test in tests.items())
    draw = partial(run_charts.accuracies, tests=tests, goal=None)
    return album.chart("accuracies", alt, draw, width=5.2, height=1.3 + 0.45 * len(runs))


def _draw_curves(phases: Mapping[str, PhaseRecord], album: Album) -> Picture | None:
    histories = {name: phase.history for name, phase in phases.items() if phase.history}
    if not histories:
        return None
    draw = partial(run_charts.overlaid, histories=histories)
    return album.chart("curves", "Accuracy on validation per epoch", draw)
