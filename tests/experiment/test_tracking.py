"""Runs that are sent to trackers, read back by the trackers' own libraries."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from small_runs import Runner, history

import tlkit
from tlkit.cli.app import main
from tlkit.errors import RecipeError
from tlkit.experiment.log import PluginFailed, read_events
from tlkit.experiment.record import RunRecord
from tlkit.recipe.recipe import make_recipe

# MLflow and TensorBoard warn of what other libraries will drop
pytestmark = pytest.mark.filterwarnings("ignore")

ONE_EPOCH = {"training.epochs": 1}


class Notes(tlkit.Observer):
    """Collects what a user is told."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


@pytest.fixture(scope="module")
def mlflow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """MLflow with a store of its own, in SQLite."""
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        patch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
        library = pytest.importorskip("mlflow", reason="mlflow-skinny is not installed")
        pytest.importorskip("alembic", reason="MLflow's SQLite store needs it")
        folder = tmp_path_factory.mktemp("mlflow")
        library.set_tracking_uri(f"sqlite:///{folder / 'mlflow.db'}")
        library.create_experiment("few", artifact_location=str(folder / "artifacts"))
        yield library


def test_a_run_in_tensorboard_and_mlflow(
    run: Runner, mlflow: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", reason="tensorboard is not installed"
    )
    out = tmp_path / "tracked"
    tracked = {"track.with": ["tensorboard", "mlflow"], "training.epochs": 2}
    run(out=out, overrides=tracked, phases=["bottleneck"])
    # the run goes on where it was, in the same run of MLflow's
    ended = run(out=out, overrides=tracked)
    # the content of a report takes long to make
    monkeypatch.setattr("tlkit.reporting.page.make_report", lambda *_: None)
    monkeypatch.setattr("tlkit.reporting.page.render", lambda *_: "<p>the report</p>")
    tlkit.report(out)
    (tracking,) = mlflow.search_runs(experiment_names=["few"], output_format="list")
    client = mlflow.MlflowClient()
    assert not client.list_artifacts(tracking.info.run_id), "a run folder may be somebody else's"
    tlkit.report(ended)

    (tracking,) = mlflow.search_runs(experiment_names=["few"], output_format="list")
    assert tracking.info.status == "FINISHED" and tracking.info.run_name == str(out)
    assert tracking.data.params["training.optimizer.lr"] == "0.01"
    assert tracking.data.params["phase.fine-tune.freeze.name"] == "all-but-last-blocks"
    events = accumulator.EventAccumulator(str(out / "tensorboard"))
    events.Reload()
    for phase in ("bottleneck", "fine-tune"):
        rows = history(ended, phase)
        for key in ("train_loss", "val_loss", "val_accuracy", "lr"):
            logged = client.get_metric_history(tracking.info.run_id, f"{phase}/{key}")
            scalars = events.Scalars(f"{phase}/{key}")
            for rows_of_tracker in (logged, scalars):
                assert [row.step for row in rows_of_tracker] == [1, 2]
                values = [row[key] for row in rows]
                assert [row.value for row in rows_of_tracker] == pytest.approx(values)
        test = ended.results.phase(phase).test
        low, high = (tracking.data.metrics[f"{phase}/test/ci95_{end}"] for end in ("low", "high"))
        assert (tracking.data.metrics[f"{phase}/test/accuracy"], (low, high)) == (test.accuracy, test.ci95)
        (scalar,) = events.Scalars(f"{phase}/test/accuracy")
        assert scalar.value == pytest.approx(test.accuracy)
    (artifact,) = client.list_artifacts(tracking.info.run_id)
    assert (
        Path(client.download_artifacts(tracking.info.run_id, artifact.path)).read_text()
        == "<p>the report</p>"
    )
    # the recipe's keys were written once, as hyperparameters of a run in a folder of their own
    (hyperparameters,) = (out / "tensorboard").glob("*/hparams.yml")
    assert "training.optimizer.lr: 0.01\n" in hyperparameters.read_text()


def test_a_tracker_that_fails_does_not_end_the_run(
    run: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    log = mock.Mock(side_effect=OSError("the disk is full"))
    monkeypatch.setattr("accelerate.tracking.TensorBoardTracker.log", log)
    observer, out = Notes(), tmp_path / "out"
    ended = run(out=out, overrides={"track.with": ["tensorboard"], **ONE_EPOCH}, observer=observer)
    assert len(ended.results.phases) == 2 and log.call_count == 1
    assert observer.notes == [
        "the run continues without tensorboard, which failed: OSError: the disk is full"
    ]
    (failed,) = [event for event in read_events(out / "log.jsonl") if isinstance(event, PluginFailed)]
    assert (failed.hook, failed.problem) == ("track", "tensorboard: OSError: the disk is full")


def test_fit_in_tensorboard(by_class: Path, tmp_path: Path) -> None:
    accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", reason="tensorboard is not installed"
    )
    out, options = tmp_path / "out", "--backbone vgg16-quarter --quality fast --folds 2 --no-report".split()
    command = ["tlkit", "fit", str(by_class), *options, "--track", "tensorboard", "--out", str(out)]
    with mock.patch.object(sys, "argv", command), pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
    scores = RunRecord(out).results.phases[0].out_of_fold
    events = accumulator.EventAccumulator(str(out / "tensorboard"))
    events.Reload()
    for key, value in (("accuracy", scores.accuracy), ("ci95_low", scores.ci95[0])):
        (scalar,) = events.Scalars(f"probe/out_of_fold/{key}")
        assert scalar.value == pytest.approx(value)
    # the recipe says so, too, and the same call ends with the same run
    assert tlkit.read_recipe(out).trackers == ("tensorboard",)
    again = tlkit.fit(
        by_class, backbone="vgg16-quarter", quality="fast", folds=2, track="tensorboard", out=out
    )
    assert again.results.phases[0].out_of_fold == scores


def test_fit_checks_trackers_before_anything_runs(
    by_class: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(RecipeError) as error:
        tlkit.fit(by_class, backbone="auto", track=["wandb", "tensorbord"], out=tmp_path / "out")
    assert error.value.problems == [
        "track: there is no tracker 'tensorbord' (did you mean 'tensorboard'?): tensorboard, mlflow, wandb",
        "track: wandb missing: pip install 'tlkit[wandb]'",
    ]


def test_an_interrupted_run_leaves_no_run_open(run: Runner, mlflow: Any) -> None:
    class Interrupting(tlkit.Observer):
        @tlkit.hookimpl
        def tlkit_phase_started(self) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(overrides={"track.with": ["mlflow"], **ONE_EPOCH}, observer=Interrupting())
    assert mlflow.active_run() is None


def test_a_missing_package_is_an_error_before_anything_runs(
    run: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(RecipeError, match=r"track.with: wandb missing: pip install 'tlkit\[wandb\]'"):
        run(out=tmp_path / "out", overrides={"track.with": ["wandb"]})
    assert not (tmp_path / "out").exists()


def test_trackers_that_there_are_not() -> None:
    recipe = make_recipe({"name": "x", "track": {"with": ["tensorbord"], "wit": []}, "phase": []})
    assert [flaw for flaw in recipe.flaws if flaw.startswith("track")] == [
        "track.with.0: must be 'tensorboard', 'mlflow' or 'wandb', and is \"tensorbord\"",
        "track.wit: is unknown (did you mean 'with'?)",
    ]
