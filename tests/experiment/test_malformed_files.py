"""Malformed files of run and model folders: one error that names the file and the key, column or line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from commands import command
from model_folders import sign
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
        if path.name == "config.json":
            sign(document)
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
    (
        "plan.json",
        "wrong value",
        key("phases", 1, "blocks", 0, "state", value="learns"),
        "blocks.0.state",
    ),
    ("plan.json", "unknown key", key("phases", 0, "fronteir", value="x"), "phases.0.fronteir"),
    ("log.jsonl", "cut in the middle", line(2, '{"time": 1.0, "eve'), "line 2"),
    ("log.jsonl", "a list", line(3, "[1]"), "line 3"),
    ("log.jsonl", "unknown event", line(2, '{"time": 1.0, "event": "phase_strated"}'), "line 2"),
    ("log.jsonl", "no event", line(2, '{"time": 1.0}'), "line 2"),
    ("log.jsonl", "missing key", line(2, '{"time": 1.0, "event": "phase_started"}'), "phase"),
    ("log.jsonl", "wrong type", replaced('"val_accuracy":', '"val_accuracy":"half","lr":'), "val_accuracy"),
    ("log.jsonl", "not UTF-8", content(b"\xe4\n"), "utf-8"),
    (HISTORY, "empty", content(""), "empty"),
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
#: What `tlkit run` reads of a run that it resumes.
RESUMED: list[tuple[str, str, Damage, str]] = [
    ("results.json", "missing key", key("phases", 0, "test", "accuracy"), "phases.0.test.accuracy"),
    ("results.json", "another recipe's phase", key("phases", 0, "name", value="other"), "other"),
    ("plan.json", "wrong type", key("data", "train", value="all"), "data.train"),
    ("splits.csv", "not UTF-8", appended(b"\xe4"), "utf-8"),
    ("phases/bottleneck/predictions.csv", "missing", Path.unlink, "No such file"),
    ("phases/bottleneck/predictions.csv", "other columns", replaced("split,", "splt,"), "split"),
    ("phases/bottleneck/predictions.csv", "too few cells", line(3, "val,cat/1.jpg,cat"), "line 3"),
    ("phases/bottleneck/predictions.csv", "unknown label", cell(3, "label", "cow"), "line 3"),
    ("phases/bottleneck/predictions.csv", "not UTF-8", appended(b"\xe4"), "utf-8"),
    ("phases/bottleneck/predictions.csv", "unknown image", replaced("test,cat/", "test,cow/"), "cat/"),
    ("phases/bottleneck/model/config.json", "unknown key", key("tlkit", "clases", value=[]), "tlkit.clases"),
]
CONFIG: list[tuple[str, Damage, str]] = [
    ("not JSON", content("{"), "Invalid JSON"),
    ("empty", content(""), "Invalid JSON"),
    ("a list", content("[]"), "object"),
    ("not UTF-8", content(b'{"\xe4": 1}'), "utf-8"),
    ("not tlkit's", content('{"architecture": "resnet18"}'), "tlkit"),
    ("missing format", key("tlkit", "format"), "tlkit.format"),
    ("missing key", key("tlkit", "classes"), "tlkit.classes"),
    ("missing size", key("tlkit", "preprocess", "size"), "tlkit.preprocess.size"),
    ("missing mean", key("tlkit", "preprocess", "mean"), "tlkit.preprocess.mean"),
    ("missing temperature", key("tlkit", "calibration", "temperature"), "calibration.temperature"),
    ("missing name", key("tlkit", "head", "name"), "tlkit.head"),
    ("wrong type", key("tlkit", "preprocess", "size", value="large"), "tlkit.preprocess.size"),
    ("wrong value", key("tlkit", "preprocess", "resize", value="sqush"), "tlkit.preprocess.resize"),
    ("a negative size", key("tlkit", "preprocess", "size", value=-5), "tlkit.preprocess.size"),
    (
        "a temperature of 0",
        key("tlkit", "calibration", "temperature", value=0),
        "calibration.temperature",
    ),
    ("unknown key", key("tlkit", "clases", value=["a", "b"]), "tlkit.clases"),
    ("unknown preprocessing", key("tlkit", "preprocess", "sise", value=64), "tlkit.preprocess.sise"),
    ("unknown calibration", key("tlkit", "calibration", "temp", value=1.0), "tlkit.calibration.temp"),
    ("no classes", key("tlkit", "classes", value=[]), "tlkit.classes"),
]
RECORD = [("results.json", *case) for case in RESULTS] + OTHERS

by_kind = pytest.mark.parametrize(
    ("kind", "damage", "named"), RESULTS, ids=[kind.replace(" ", "-") for kind, _, _ in RESULTS]
)
by_config = pytest.mark.parametrize(
    ("kind", "damage", "named"), CONFIG, ids=[kind.replace(" ", "-") for kind, _, _ in CONFIG]
)


def by_file(cases: list[tuple[str, str, Damage, str]]) -> pytest.MarkDecorator:
    names = [f"{Path(file).name}-{kind.replace(' ', '-')}" for file, kind, _, _ in cases]
    return pytest.mark.parametrize(("file", "kind", "damage", "named"), cases, ids=names)


def assert_clear(message: str, path: Path, named: str) -> None:
    """Checks that a message is one sentence that names the file and the key, column or line."""
    assert str(path) in message
    assert named in message.replace(str(path), "")
    assert "\n" not in message.strip()
    for internal in ("Traceback", "Input should be", "pydantic", "KeyError", "errors.pydantic.dev"):
        assert internal not in message


def assert_command_fails(arguments: tuple[object, ...], path: Path, named: str) -> None:
    """Checks that a command ends with 2, the code of a user's mistake, and one clear error."""
    completed = command(*arguments)
    assert completed.returncode == 2, completed.stderr
    before, separator, message = completed.stderr.partition("Error: ")
    assert separator and "Traceback" not in before, completed.stderr
    assert_clear(message, path, named)


@by_file(RECORD)
def test_a_record_names_the_file_and_what_is_wrong(
    file: str, kind: str, damage: Damage, named: str, run_copy: Path
) -> None:
    damage(run_copy / file)
    with pytest.raises(RunFolderError) as caught:
        for phase in RunRecord(run_copy).phases:
            assert phase.predictions
    assert_clear(str(caught.value), run_copy / file, named)


@by_kind
def test_loading_a_run_names_what_is_wrong_with_its_results(
    kind: str, damage: Damage, named: str, run_copy: Path
) -> None:
    damage(run_copy / "results.json")
    with pytest.raises(RunFolderError) as caught:
        tlkit.load(run_copy)
    assert_clear(str(caught.value), run_copy / "results.json", named)


@by_kind
def test_commands_on_malformed_results(
    kind: str, damage: Damage, named: str, run_copy: Path, fitted: Path, by_class: Path, tmp_path: Path
) -> None:
    path = run_copy / "results.json"
    damage(path)
    image = by_class / "cat" / "1.jpg"
    assert_command_fails(("predict", run_copy, image), path, named)
    assert_command_fails(("evaluate", run_copy, by_class), path, named)
    assert_command_fails(("explain", run_copy, image, "--out", tmp_path / "explained"), path, named)
    assert_command_fails(
        ("export", run_copy, "--format", "timm", "--out", tmp_path / "exported"), path, named
    )
    assert_command_fails(("report", run_copy), path, named)
    assert_command_fails(("compare", run_copy, fitted, "--out", tmp_path / "compared"), path, named)
    assert_command_fails(("compare", fitted, run_copy, "--out", tmp_path / "compared"), path, named)
    assert_command_fails(("run", run_copy, "--out", run_copy), path, named)
    assert not any((tmp_path / name).exists() for name in ("explained", "exported", "compared"))


@by_file(OTHERS)
def test_report_and_compare_on_malformed_files(
    file: str, kind: str, damage: Damage, named: str, run_copy: Path, fitted: Path, tmp_path: Path
) -> None:
    path = run_copy / file
    damage(path)
    assert_command_fails(("report", run_copy), path, named)
    assert_command_fails(("compare", fitted, run_copy, "--out", tmp_path / "compared"), path, named)
    assert not (run_copy / "report.html").exists()
    assert not (tmp_path / "compared").exists()


@pytest.fixture(scope="module")
def unfinished(fitted: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on few and small images of which only the first phase has ended."""
    folder = tmp_path_factory.mktemp("unfinished")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TLKIT_CACHE", str(folder / "cache"))
        counts = {"train": 6, "val": 3, "test": 3}
        few = {"training.epochs": 1, "preprocess.size": 64, "data.per_class": counts}
        tlkit.run(fitted, overrides=few, out=folder / "run", phases=["bottleneck"])
    return folder / "run"


@by_file(RESUMED)
def test_resuming_a_run_with_a_malformed_file(
    file: str, kind: str, damage: Damage, named: str, unfinished: Path, tmp_path: Path
) -> None:
    folder = copy_run(unfinished, tmp_path / "run")
    damage(folder / file)
    assert_command_fails(("run", folder, "--out", folder, "--no-report"), folder / file, named)


@pytest.fixture
def model(fitted: Path, tmp_path: Path) -> Path:
    """A copy of a model folder."""
    return copy_run(fitted / "phases" / "fine-tune" / "model", tmp_path / "model")


@by_config
def test_a_malformed_config_names_the_key(
    kind: str, damage: Damage, named: str, model: Path, by_class: Path, tmp_path: Path
) -> None:
    path = model / "config.json"
    damage(path)
    with pytest.raises(RunFolderError) as caught:
        tlkit.load(model)
    assert_clear(str(caught.value), path, named)
    image = by_class / "cat" / "1.jpg"
    assert_command_fails(("predict", model, image), path, named)
    assert_command_fails(("evaluate", model, by_class), path, named)
    assert_command_fails(("explain", model, image, "--out", tmp_path / "explained"), path, named)
    export = ("export", model, "--format", "timm", "--images", by_class, "--out", tmp_path / "exported")
    assert_command_fails(export, path, named)


def test_a_model_of_a_newer_tlkit_asks_for_an_update(model: Path, by_class: Path) -> None:
    key("tlkit", "format", value=2)(model / "config.json")
    key("tlkit", "clases", value=["of a newer format"])(model / "config.json")
    with pytest.raises(RunFolderError, match="was made by a newer tlkit than this one: update tlkit"):
        tlkit.load(model)
    assert_command_fails(("predict", model, by_class / "cat" / "1.jpg"), model, "update tlkit")


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (key("tlkit", "backbone", "name", value="vgg16-quater"), "did you mean 'vgg16-quarter'"),
        (key("tlkit", "backbone", "wieghts", value="none"), "did you mean 'weights'"),
        (key("tlkit", "head", "name", value="liner"), "did you mean 'linear'"),
        (key("tlkit", "head", "hiden", value=3), "'hiden' is unknown"),
    ],
)
def test_a_model_with_unknown_parts_names_its_config(
    damage: Damage, named: str, model: Path, by_class: Path
) -> None:
    damage(model / "config.json")
    with pytest.raises(tlkit.TlkitError) as caught:
        tlkit.load(model)
    assert_clear(str(caught.value), model, named)
    assert_command_fails(("predict", model, by_class / "cat" / "1.jpg"), model, named)
