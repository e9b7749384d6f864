"""Prediction in an engine's workers: what one process predicts, whatever is lost on the way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from commands import command
from pyarrow import parquet

import tlkit
from tlkit.inference import worker_prediction
from tlkit.inference.prediction_parquet import writing_parquet
from tlkit.plugins.loader import BUILTIN, load_registry


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Divides a dozen photos into several blocks; the engines are those of tests."""
    monkeypatch.setattr(worker_prediction, "BLOCK", 4)
    registry = load_registry((*BUILTIN, "engine_parts"))
    monkeypatch.setattr(worker_prediction, "load_registry", lambda: registry)


@pytest.fixture
def files(known: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A dozen photos and what is none, named relative to the current folder."""
    monkeypatch.chdir(known[0].parent)
    damaged = tmp_path / "damaged.jpg"
    damaged.write_bytes(b"no photo")
    return [*(path.name for path in known[::5]), str(damaged), *(path.name for path in known[1::10])]


def test_lost_blocks_are_predicted_again_in_order(model: tlkit.Run, files: list[str]) -> None:
    """They are lost before and after they are computed."""
    expected = tlkit.predict(model.folder, files, top=2)
    engine = {"name": "pickling", "lost": 1, "unfinished": 1}
    predictions = tlkit.predict(model.folder, files, top=2, engine=engine)
    assert [prediction.image for prediction in predictions] == files
    # other batches, other last bits
    for prediction, other in zip(predictions, expected, strict=True):
        assert (prediction.label, prediction.error) == (other.label, other.error)
        assert (prediction.confidence or 0) == pytest.approx(other.confidence or 0, rel=1e-4)


def test_full_blocks_give_the_bits_of_one_process(
    model: tlkit.Run, files: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_prediction, "BLOCK", 32)
    many = files * 4
    assert tlkit.predict(model.folder, many, engine="pickling") == tlkit.predict(model.folder, many)


@pytest.mark.parametrize("unknown", [True, False])
def test_scores_are_those_of_one_process(
    model: tlkit.Run, known: list[Path], unknown: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_prediction, "BLOCK", 32)
    labels = [path.name.split(".")[0] for path in known]
    own = tlkit.evaluate(model.folder, known, labels, unknown=unknown, reject_below=0.9)
    engine = {"name": "pickling", "lost": 1}
    scores = tlkit.evaluate(
        model.folder, known, labels, unknown=unknown, reject_below=0.9, engine=engine, device="cpu"
    )
    assert scores == own and scores.n == len(known) and (scores.unknown is None) != unknown


def test_images_that_workers_cannot_read_are_listed(model: tlkit.Run, files: list[str]) -> None:
    with pytest.raises(tlkit.DataError, match=r"images cannot be read.*\n.*damaged\.jpg: "):
        tlkit.evaluate(model.folder, files, ["cat"] * len(files), engine="pickling")
    with pytest.raises(tlkit.DataError, match="does not know 'cow'"):
        tlkit.evaluate(model.folder, files, ["cow"] * len(files), engine="pickling")
    with pytest.raises(tlkit.DataError, match="workers load the model themselves"):
        tlkit.evaluate(tlkit.load(model.folder), files, ["cat"] * len(files), engine="pickling")


def test_few_blocks_wait_for_a_lost_one(
    model: tlkit.Run, files: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise, the predictions of a million images would be in memory."""
    monkeypatch.setattr(worker_prediction, "BLOCK", 1)
    monkeypatch.setattr(worker_prediction, "WAITING", 3)
    read_files: list[str] = []
    notes: list[str] = []
    predictions = worker_prediction.stream_from_workers(
        {"name": "pickling", "lost": 1},
        model.folder,
        (read_files.append(file) or file for file in files),  # type: ignore[func-returns-value]
        notes.append,
        top=1,
        phase=None,
        reject_below=None,
        unknown=True,
        device="cpu",
        precision="float32",
    )
    assert (next(predictions).image, read_files) == (files[0], files[:5])
    assert notes == ["blocks of images that were lost with their workers: 1; predicting them again"]
    assert [prediction.image for prediction in predictions] == files[1:]


@pytest.mark.parametrize(
    ("engine", "message"),
    [
        (
            # the others are predicted
            {"name": "pickling", "lost": 1, "always": True},
            r"images are not predicted, .* always lost: the images from cat\.41\.jpg on",
        ),
        ("repeating", "the engine yields block 0, which it has not yet to compute"),
    ],
)
def test_mistakes_of_engines(
    engine: str | dict[str, Any],
    message: str,
    model: tlkit.Run,
    files: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(worker_prediction, "ATTEMPTS", 1)
    with pytest.raises(tlkit.EngineError, match=message):
        tlkit.predict(model.folder, files, engine=engine)


def test_a_worker_with_another_model_is_refused(
    model: tlkit.Run, files: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as an older one under the same path: here, this process reads other files than the worker."""
    contents = iter("ab")
    monkeypatch.setattr(worker_prediction, "identify", lambda _: next(contents))
    with pytest.raises(tlkit.EngineError, match=r"a worker finds another model in .*/phases/probe/model"):
        tlkit.predict(model.folder, files, engine="pickling")


def test_an_engine_that_is_not_there(
    model: tlkit.Run, files: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The device is the workers': this computer may have no GPU."""
    done = command("predict", model.folder, files[0], "--engine", "dask", "--device", "cuda")
    message = " ".join(done.stderr.split())
    assert done.returncode == 2 and "no engine is called 'dask'" in message and "tlkit[ray]" not in message
    monkeypatch.setattr("tlkit.experiment.validation.find_spec", lambda _: None)
    with pytest.raises(tlkit.PluginError, match=r"no engine is called 'dask'.*; .*tlkit\[ray\]"):
        tlkit.predict(model.folder, ["photo.jpg"], engine="dask")
    with pytest.raises(tlkit.PluginError, match=r"no engine is called 'dask'"):
        tlkit.evaluate(model.folder, files, ["cat"] * len(files), engine="dask", device="cuda")


def test_predictions_in_parquet(model: tlkit.Run, files: list[str], tmp_path: Path) -> None:
    file = tmp_path / "predictions.parquet"
    done = command("predict", model.folder, *files, "--top", 2, "--out", file)
    assert (done.returncode, done.stdout) == (1, "")
    expected = tlkit.predict(model.folder, files, top=2)
    rows = parquet.read_table(file).to_pylist()
    assert [row["path"] for row in rows] == files
    for row, prediction in zip(rows, expected, strict=True):
        assert (row["label"], row["error"]) == (prediction.label, prediction.error)
        assert row["confidence"] == prediction.confidence
        assert [(score["class"], score["probability"]) for score in row["top"]] == list(prediction.top)


def test_a_name_that_is_not_utf8_is_written_with_escapes(tmp_path: Path) -> None:
    file = tmp_path / "predictions.parquet"
    with writing_parquet(file) as write:
        write(tlkit.Prediction("b\udcff.jpg", None, None, (), "the file is empty"))
    assert parquet.read_table(file)["path"].to_pylist() == [r"b\udcff.jpg"]


def test_errors_of_a_parquet_file_are_its_own(tmp_path: Path) -> None:
    """An engine may lose its connection while the file is written."""
    with pytest.raises(ConnectionResetError), writing_parquet(tmp_path / "predictions.parquet"):
        raise ConnectionResetError
    assert not list(tmp_path.iterdir())
    with (
        pytest.raises(tlkit.DataError, match=r"predictions\.parquet cannot be written: "),
        writing_parquet(tmp_path / "predictions.parquet"),
    ):
        (tmp_path / "predictions.parquet").mkdir()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--out", "folder.parquet"], "folder.parquet is a folder: name a file"),
        (["--out", "missing/a.parquet"], "a.parquet cannot be written: folder missing does not exist"),
        (["--out", "predictions.csv"], "predictions.csv: predictions are written in Parquet"),
        (["--out", "predictions.parquet", "--json"], "--json and --csv print, and --out writes a file"),
        (["--set", "cpus=2"], "--set cpus=2 is an option of an engine: name it with --engine"),
        (["--engine", "ray", "--set", "name=dask"], "--set name=…: --engine has the engine's name"),
    ],
)
def test_mistakes(
    options: list[str], message: str, by_class: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.parquet").mkdir()
    done = command("predict", "model", by_class, *options)
    assert done.returncode == 2
    assert message in " ".join(done.stderr.split())
