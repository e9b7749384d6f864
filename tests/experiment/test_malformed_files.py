"""Malformed files of run and model folders: one error that names the file and the key, column or line."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from commands import command
from small_runs import copy_run

import tlkit
from tlkit.errors import RunFolderError
from tlkit.experiment.record import RunRecord

Damage = Callable[[Path], object]

HISTORY = "phases/fine-tune/history.csv"
PREDICTIONS = "phases/fine-tune/predictions.csv"
MISSING = object()


def content(text: str | bytes) -> Damage:
    """Replaces a file's content."""
    return lambda path: path.write_bytes(text if isinstance(text, bytes) else text.encode())


def key(*keys: str | int, value: object = MISSING) -> Damage:
    """Sets a key of a JSON file, or removes it."""

    def damage(path: Path) -> None:
        document: Any = json.loads(path.read_text())
        table = document
        for name in keys[:-1]:
            table = table[name]
        if value is MISSING:
            del table[keys[-1]]
        else:
            table[keys[-1]] = value
        path.write_text(json.dumps(document))

    return damage


def line(number: int, text: str) -> Damage:
    """Replaces a line; lines are counted from 1."""

    def damage(path: Path) -> None:
        lines = path.read_text().splitlines()
        lines[number - 1] = text
        path.write_text("\n".join(lines) + "\n")

    return damage


def cell(number: int, column: str, text: str) -> Damage:
    """Replaces a cell of a CSV file without quotes, in a line that is counted from 1."""

    def damage(path: Path) -> None:
        lines = path.read_text().splitlines()
        cells = lines[number - 1].split(",")
        cells[lines[0].split(",").index(column)] = text
        line(number, ",".join(cells))(path)

    return damage


def replaced(old: str, new: str) -> Damage:
    """Replaces the first occurrence of a text, which must be there."""

    def damage(path: Path) -> None:
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new, 1))

    return damage


def appended(tail: bytes) -> Damage:
    """Appends to a file."""
    return lambda path: path.write_bytes(path.read_bytes() + tail)


#: Files that every command reads: the kind of damage, and what the error names besides the file.
RESULTS: list[tuple[str, Damage, str]] = [
    ("not JSON", content("{"), "Invalid JSON"),
    ("empty", content(""), "Invalid JSON"),
    ("a list", content("[]"), "object"),
    ("not UTF-8", content(b'{"recipe": "\xe4"}'), "utf-8"),
    ("missing key", key("phases", 1, "test", "accuracy"), "phases.1.test.accuracy"),
    ("missing table", key("data"), "data"),
    ("wrong type", key("phases", 0, "val", "n", value="many"), "phases.0.val.n"),
    ("null", key("phases", value=None), "phases"),
    ("unknown key", key("phases", 1, "tset", value=1), "phases.1.tset"),
    ("wrong schema", key("schema", value=2), "schema"),
    ("missing schema", key("schema"), "schema"),
]
#: Files that only a run's record has.
OTHERS: list[tuple[str, str, Damage, str]] = [
    ("run.json", "not JSON", content("no"), "Invalid JSON"),
    ("run.json", "a list", content("[1]"), "object"),
    ("run.json", "missing key", key("finished"), "finished"),
    ("run.json", "wrong type", key("threads", value="two"), "threads"),
    ("run.json", "unknown key", key("treads", value=2), "treads"),
    ("plan.json", "not JSON", content("{'a': 1}"), "Invalid JSON"),
    ("plan.json", "a list", content("[]"), "object"),
    ("plan.json", "missing key", key("phases", 0, "frontier"), "phases.0.frontier"),
    ("plan.json", "wrong type", key("data", "train", value="all"), "data.train"),
    ("plan.json", "wrong value", key("phases", 1, "blocks", 0, "state", value="learns"), "phases.1.blocks.0.state"),
    ("plan.json", "unknown key", key("phases", 0, "fronteir", value="x"), "phases.0.fronteir"),
    ("log.jsonl", "cut in the middle", line(2, '{"time": 1.0, "eve'), "line 2"),
    ("log.jsonl", "a list", line(3, "[1]"), "line 3"),
    ("log.jsonl", "unknown event", line(2, '{"time": 1.0, "event": "phase_strated"}'), "line 2"),
    ("log.jsonl", "no event", line(2, '{"time": 1.0}'), "line 2"),
    ("log.jsonl", "missing key", line(2, '{"time": 1.0, "event": "phase_started"}'), "phase"),
    ("log.jsonl", "wrong type", replaced('"val_accuracy":', '"val_accuracy":"half","lr":'), "val_accuracy"),
    ("log.jsonl", "not UTF-8", line(2, "") and content(b"\xe4\n"), "utf-8"),
    (HISTORY, "empty", content(""), "columns"),
    (HISTORY, "other columns", replaced("val_loss", "loss"), "val_loss"),
    (HISTORY, "too few cells", line(3, "2,0.5"), "line 3"),
    (HISTORY, "not a number", cell(2, "train_loss", "low"), "line 2"),
    (HISTORY, "not an integer", cell(4, "epoch", "3.5"), "line 4"),
    (HISTORY, "an empty line", appended(b"\n"), "line 6"),
    (HISTORY, "not UTF-8", appended(b"\xe4"), "utf-8"),
    ("splits.csv", "other columns", replaced("sha256", "md5"), "sha256"),
    ("splits.csv", "too few cells", line(3, "train,cat/1.jpg,cat"), "line 3"),
    ("splits.csv", "unknown label", cell(5, "label", "cow"), "line 5"),
    ("splits.csv", "unknown split", cell(5, "split", "trian"), "line 5"),
    ("splits.csv", "not a number", cell(4, "width", "wide"), "line 4"),
    ("splits.csv", "not UTF-8", appended(b"\xe4"), "utf-8"),
    (PREDICTIONS, "other columns", replaced("p_cat", "p_kat"), "p_cat"),
    (PREDICTIONS, "too few cells", line(3, "val,cat/1.jpg,cat,cat,0.5"), "line 3"),
    (PREDICTIONS, "too many cells", line(3, "val,cat/1.jpg,cat,cat,0.5,0.25,0.25"), "line 3"),
    (PREDICTIONS, "unknown label", cell(4, "label", "cow"), "line 4"),
    (PREDICTIONS, "unknown prediction", cell(4, "predicted", "cow"), "line 4"),
    (PREDICTIONS, "unknown split", cell(4, "split", "tset"), "line 4"),
    (PREDICTIONS, "unknown image", cell(4, "id", "cat/none.jpg"), "cat/none.jpg"),
    (PREDICTIONS, "not a number", cell(5, "p_dog", "half"), "line 5"),
    (PREDICTIONS, "not UTF-8", appended(b"\xe4"), "utf-8"),
]
RECORD = [("results.json", *case) for case in RESULTS] + OTHERS


def ids(value: object) -> str:
    return value if isinstance(value, str) else ""
