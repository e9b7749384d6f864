"""Run folders from strangers, changed at random: read, or refused with the file's name; nothing else."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from small_runs import copy_run

import tlkit
from tlkit.experiment.record import RunRecord

FILES = (
    "results.json",
    "plan.json",
    "run.json",
    "splits.csv",
    "phases/fine-tune/history.csv",
    "phases/fine-tune/predictions.csv",
    "phases/bottleneck/predictions.csv",
    "log.jsonl",
)
NUMBERS = (True, -1, 0, 10**30, 1e308, float("nan"), float("inf"), -0.5, 2.5, 1e-300)
VALUES = (*NUMBERS, None, "", "x", "=1+1", "\x00", "a" * 10_000, [], {}, [[]], {"a": 1})
CELLS = ("", "nan", "inf", "-1", "1e400", "x", "=1", "\x00", "9" * 20, "9" * 400, '"', "2.5", "0")


def paths(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yields the paths to everything inside a JSON document."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield (*path, key)
        yield from paths(item, (*path, key))


def change_json(text: str, chance: random.Random) -> str:
    document = json.loads(text)
    *parents, last = chance.choice(list(paths(document)))
    table = document
    for key in parents:
        table = table[key]
    if chance.random() < 0.15:
        del table[last]
    else:
        table[last] = chance.choice(VALUES)
    return json.dumps(document)


def change_csv(text: str, chance: random.Random) -> str:
    lines = text.splitlines()
    number = chance.randrange(len(lines))
    cells = lines[number].split(",")
    cells[chance.randrange(len(cells))] = chance.choice(CELLS)
    lines[number] = ",".join(cells)
    return "\n".join(lines) + "\n"


def assert_read_or_refused(read: Callable[[Path], object], seeds: range, fitted: Path, tmp_path: Path) -> int:
    """Reads one changed copy of a run folder per seed; returns how many were refused."""
    refused = 0
    for seed in seeds:
        chance, run = random.Random(seed), copy_run(fitted, tmp_path / f"run-{seed}")
        file = run / chance.choice(FILES)
        change = change_json if file.suffix == ".json" else change_csv
        file.write_text(change(file.read_text(), chance))
        try:
            read(run)
        except tlkit.TlkitError as error:
            refused += 1
            assert file.name in str(error), (seed, file)
        shutil.rmtree(run)
    return refused


def read_everything(run: Path) -> None:
    record = RunRecord(run)
    assert record.recipe.name
    for phase in record.phases:
        for predictions in phase.predictions.values():
            assert predictions.confidence.max() <= 1.001


def test_changed_run_folders(fitted: Path, tmp_path: Path) -> None:
    refused = assert_read_or_refused(read_everything, range(300), fitted, tmp_path)
    assert 100 < refused < 300


def test_changed_run_folders_are_compared(fitted: Path, tmp_path: Path) -> None:
    other = copy_run(fitted, tmp_path / "other")

    def compare(run: Path) -> None:
        tlkit.compare([other, run], tmp_path / "compared")

    assert_read_or_refused(compare, range(1000, 1015), fitted, tmp_path)


@pytest.mark.slow
def test_reports_of_changed_run_folders(fitted: Path, tmp_path: Path) -> None:
    def report(run: Path) -> None:
        (run / "report.html").unlink(missing_ok=True)
        tlkit.report(run)

    assert_read_or_refused(report, range(2000, 2040), fitted, tmp_path)
