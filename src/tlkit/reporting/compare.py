"""Several runs on one page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from tlkit.errors import RunFolderError
from tlkit.evaluation.significance import mcnemar
from tlkit.experiment.record import PhaseRecord, RunRecord
from tlkit.reporting import run_charts
from tlkit.reporting.pictures import Album
from tlkit.reporting.render import render, replaced_when_complete

#: A p-value below which a difference counts as more than chance.
BEYOND_CHANCE = 0.05


@dataclass(frozen=True)
class Comparison:
    """Runs side by side.

    Attributes:
        runs: a row per run: name, phase, test, seconds, learning, train, machine.
        pairs: a row per pair: first, second, n (test images in common), gained, lost and p.
        page: where the page is.
    """

    runs: list[dict[str, Any]]
    pairs: list[dict[str, Any]]
    page: Path


def compare(runs: Sequence[Path | str], out: Path | str) -> Comparison:
    """Compares the last finished phases of runs, and makes a page of it, ``compare.html``.

    Two runs are tested against each other on the test images whose content both have.

    Args:
        runs: run folders, two or more.
        out: the folder to write; a comparison that is there is replaced.

    Raises:
        RunFolderError: one is no run folder or has finished no phase, or `out` holds other things.
        ReportError: the page cannot be written.
    """
    if len(runs) < 2:
        raise RunFolderError("a comparison needs two runs or more")
    folder = Path(out)
    page = folder / "compare.html"
    if folder.exists() and (not folder.is_dir() or (any(folder.iterdir()) and not page.is_file())):
        raise RunFolderError(f"{folder} is not empty and holds no comparison: name another --out")
    records = [RunRecord(Path(run)) for run in runs]
    names = _names([record.folder for record in records])
    last = [_last(record) for record in records]
    rows = [_row(*each) for each in zip(names, records, last, strict=True)]
    right = [_right(record, phase) for record, phase in zip(records, last, strict=True)]
    pairs = [_pair(names[a], names[b], right[a], right[b]) for a, b in combinations(range(len(runs)), 2)]
    results = [{"name": row["name"], "test": row["test"]} for row in rows]
    about = [((record.results or {}).get("data") or {}).get("about", "") for record in records]
    with replaced_when_complete(page) as unfinished:
        album = Album(unfinished)
        alt = "Accuracies: " + ", ".join(f"{row['name']} {row['test']['accuracy']:.3f}" for row in rows)
        draw = partial(run_charts.accuracies, results=results, goal=None)
        accuracies = album.chart("accuracies", alt, draw, width=5.2, height=1.3 + 0.45 * len(rows))
        trained = {name: phase for name, phase in zip(names, last, strict=True) if phase.history}
        alt = "Accuracy on validation, epoch by epoch"
        curves = album.chart("curves", alt, partial(run_charts.overlaid, phases=trained)) if trained else None
        labels = dict.fromkeys(f"The images are {text}." for text in about if text)
        text = render(
            "compare.html",
            headline=_headline(rows, pairs),
            labels=list(labels),
            runs=rows,
            pairs=pairs,
            accuracies=accuracies,
            curves=curves,
        )
        (unfinished / page.name).write_text(text, encoding="utf-8")
    return Comparison(rows, pairs, page)


def _headline(rows: list[dict[str, Any]], pairs: list[dict[str, Any]]) -> str:
    """Which run is best, as far as the same test images say so."""
    if any(not pair["n"] for pair in pairs):
        return "Not all runs were tested on the same images: their accuracies say little about which is best"
    best = max(rows, key=lambda row: row["test"]["accuracy"])
    own = [pair for pair in pairs if best["name"] in (pair["first"], pair["second"])]
    said = f"{100 * best['test']['accuracy']:.1f}% of {best['test']['n']:,} test images"
    if all(pair["p"] < BEYOND_CHANCE for pair in own):
        return f"{best['name']} is right most often, beyond chance: {said}"
    return f"{best['name']} is right most often, {said}, but not beyond chance against every other run"


def _names(folders: Sequence[Path]) -> list[str]:
    """As much of each path's end as it takes to tell them apart."""
    parts = [folder.absolute().parts for folder in folders]
    for count in range(1, max(map(len, parts)) + 1):
        names = ["/".join(part[-count:]) for part in parts]
        if len(set(names)) == len(names):
            return names
    raise RunFolderError("the same run is named twice")


def _last(record: RunRecord) -> PhaseRecord:
    if not record.done:
        raise RunFolderError(f"{record.folder}: this run has finished no phase yet")
    return record.done[-1]


def _row(name: str, record: RunRecord, last: PhaseRecord) -> dict[str, Any]:
    assert last.result is not None and record.results is not None  # it has ended
    seconds = [phase.result["seconds"] for phase in record.done if phase.result]
    return {
        "name": name,
        "phase": last.name,
        "test": last.result["test"],
        "seconds": {part: sum(each[part] for each in seconds) for part in seconds[0]},
        "learning": last.result["parameters"]["learning"],
        "train": record.results["data"]["train"],
        "machine": f"{record.about.get('machine', '')}, {record.about.get('device', '')}",
    }


def _right(record: RunRecord, last: PhaseRecord) -> dict[tuple[str, str | None], bool]:
    """Of the test images, by content and label: was the run right?"""
    found = last.predictions.get("test")
    if found is None:
        raise RunFolderError(f"{record.folder}: the predictions of phase {last.name} are not there")
    images = {row.id: (row.sha256, row.label) for row in record.images}
    if not images.keys() >= set(found.ids):
        raise RunFolderError(f"{record.folder}: splits.csv does not say which its test images are")
    return {images[name]: bool(right) for name, right in zip(found.ids, found.right, strict=True)}


def _pair(
    first: str,
    second: str,
    one: dict[tuple[str, str | None], bool],
    other: dict[tuple[str, str | None], bool],
) -> dict[str, Any]:
    common = sorted(one.keys() & other.keys(), key=str)
    before = np.array([one[image] for image in common], bool)
    after = np.array([other[image] for image in common], bool)
    return {"first": first, "second": second, "n": len(common), **mcnemar(before, after)}
