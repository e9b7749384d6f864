"""Runs read back from their folders: finished, interrupted, resumed, or hardly begun."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

import tlkit
from tlkit.errors import RunFolderError
from tlkit.experiment.log import (
    AnyEvent,
    EpochEnded,
    PhaseStarted,
    PluginFailed,
    RunEnded,
    append_event,
    read_events,
)
from tlkit.experiment.record import RunRecord, find_image_files
from tlkit.training.history import EpochMetrics


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_a_record_has_what_the_files_have(fitted: Path) -> None:
    record = RunRecord(fitted)
    results = json.loads((fitted / "results.json").read_text())
    plan = json.loads((fitted / "plan.json").read_text())
    assert record.results is not None and record.plan is not None and record.description is not None
    assert record.results.model_dump(mode="json", by_alias=True) == results
    assert record.plan.model_dump(mode="json", by_alias=True) == plan
    assert record.description.finished
    assert record.description.seed == record.recipe.seed == 1
    assert record.classes == ("cat", "dog")
    assert record.data == record.results.data
    assert [phase.name for phase in record.phases] == ["bottleneck", "fine-tune"]
    assert record.done == record.phases
    assert tuple(record.phase_results) == record.results.phases
    assert [phase.plan for phase in record.phases] == [*record.plan.phases]
    seconds = record.seconds_per_view()
    assert seconds is None or seconds > 0


def test_images_are_the_rows_of_splits_csv(fitted: Path, by_class: Path) -> None:
    record = RunRecord(fitted)
    written = rows(fitted / "splits.csv")
    assert [(row.split, row.id, row.label, row.sha256) for row in record.images] == [
        (row["split"], row["id"], row["label"], row["sha256"]) for row in written
    ]
    assert [(row.width, row.height) for row in record.images] == [
        (int(row["width"]), int(row["height"])) for row in written
    ]
    samples, source, problem = find_image_files(record.recipe, tlkit.load_registry())
    assert problem is None and source is not None
    assert {row.id for row in record.images} == set(samples)
    assert samples["cat/1.jpg"].path == by_class / "cat" / "1.jpg"


def test_histories_and_predictions_are_those_of_the_csv_files(fitted: Path) -> None:
    for phase in RunRecord(fitted).phases:
        written = rows(phase.folder / "history.csv")
        assert [metrics.epoch for metrics in phase.history] == [int(row["epoch"]) for row in written]
        assert [metrics.val_loss for metrics in phase.history] == [float(row["val_loss"]) for row in written]
        accuracies = [float(row["train_accuracy"]) for row in written]
        assert [metrics.train_accuracy for metrics in phase.history] == accuracies
        written = rows(phase.folder / "predictions.csv")
        assert set(phase.predictions) == {"val", "test"}
        for split, predictions in phase.predictions.items():
            own = [row for row in written if row["split"] == split]
            assert predictions.ids == [row["id"] for row in own]
            assert [phase.classes[label] for label in predictions.labels] == [row["label"] for row in own]
            assert [phase.classes[label] for label in predictions.predicted] == [
                row["predicted"] for row in own
            ]
            expected = np.array([[row["p_cat"], row["p_dog"]] for row in own], np.float32)
            assert np.array_equal(predictions.probabilities, expected)
            assert np.array_equal(predictions.confidence, expected.max(1))
        assert phase.result is not None
        assert phase.predictions["test"].correct.sum() == phase.result.test.correct


def test_images_without_a_label_have_none(run_copy: Path) -> None:
    with (run_copy / "splits.csv").open("a", encoding="utf-8") as file:
        file.write("unlabelled,extra/1.jpg,,10,20,ff,\n")
    with (run_copy / "phases" / "fine-tune" / "predictions.csv").open("a", encoding="utf-8") as file:
        file.write("unlabelled,extra/1.jpg,,dog,0.25,0.75\n")
    record = RunRecord(run_copy)
    assert record.images[-1].label is None
    predictions = record.phases[1].predictions["unlabelled"]
    assert predictions.labels.tolist() == [-1]
    assert predictions.predicted.tolist() == [1]
    assert not predictions.correct.any()


def test_an_interrupted_phase_has_its_epochs_from_the_log(run_copy: Path) -> None:
    finished = RunRecord(run_copy).phases[1].history
    results = json.loads((run_copy / "results.json").read_text())
    results["phases"].pop()
    (run_copy / "results.json").write_text(json.dumps(results))
    (run_copy / "phases" / "fine-tune" / "history.csv").unlink()
    (run_copy / "phases" / "fine-tune" / "predictions.csv").unlink()
    # resumed from a checkpoint, the second epoch is trained again
    again = EpochMetrics(2, 0.1, 0.2, 0.3, 0.35, 0.4, 0.5)
    append_event(run_copy / "log.jsonl", EpochEnded(phase="fine-tune", metrics=again))
    record = RunRecord(run_copy)
    assert [phase.name for phase in record.done] == ["bottleneck"]
    assert len(record.phase_results) == 1
    fine_tune = record.phases[1]
    assert fine_tune.result is None
    assert fine_tune.predictions == {}
    assert fine_tune.history == [finished[0], again, *finished[2:]]


def test_a_run_that_has_hardly_begun(run_copy: Path, tmp_path: Path) -> None:
    folder = tmp_path / "begun"
    folder.mkdir()
    (folder / "recipe.toml").write_text((run_copy / "recipe.toml").read_text())
    record = RunRecord(folder)
    assert (record.results, record.plan, record.description, record.data) == (None, None, None, None)
    assert (record.classes, record.images, record.done, record.phase_results) == ((), [], [], [])
    assert [(phase.name, phase.history, phase.predictions) for phase in record.phases] == [
        ("bottleneck", [], {}),
        ("fine-tune", [], {}),
    ]
    assert record.seconds_per_view() is None


def test_images_are_listed_where_the_classes_are_not_known(run_copy: Path) -> None:
    complete = RunRecord(run_copy).images
    (run_copy / "results.json").unlink()
    (run_copy / "plan.json").unlink()
    record = RunRecord(run_copy)
    assert record.classes == ()
    assert record.images == complete


def test_a_folder_that_is_not_a_run(tmp_path: Path) -> None:
    (tmp_path / "run-1").mkdir()
    with pytest.raises(RunFolderError, match="run-1 is not a run folder"):
        RunRecord(tmp_path / "run-1")
    with pytest.raises(RunFolderError, match=r"run-2 does not exist \(did you mean 'run-1'\?\)"):
        RunRecord(tmp_path / "run-2")


def test_a_log_is_read_as_it_was_written(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    assert read_events(log) == []
    events: list[AnyEvent] = [
        PhaseStarted(phase="zwölf"),
        EpochEnded(phase="zwölf", metrics=EpochMetrics(1, 1.5, 0.5, 0.5, 0.5, 0.1, 2.0)),
        PluginFailed(hook="tlkit_run_ended", problem="two\nlines of a problem, and a line separator: \u2028"),
        RunEnded(goal_met=None),
    ]
    for event in events:
        append_event(log, event)
    assert read_events(log) == events
    assert log.read_bytes().count(b"\n") == len(events)


@pytest.mark.parametrize(
    "cut_short",
    [b'{"time": 1.0, "eve', b"{", '{"time": 1.0, "event": "phase_started", "phase": "zwö'.encode()[:-1]],
    ids=["in-a-key", "at-its-beginning", "in-a-character"],
)
def test_a_last_line_that_was_cut_short_is_ignored(cut_short: bytes, run_copy: Path) -> None:
    log = run_copy / "log.jsonl"
    complete = read_events(log)
    log.write_bytes(log.read_bytes() + cut_short)
    assert read_events(log) == complete
    assert len(RunRecord(run_copy).phases[1].history) == 4
    # a killed run that is resumed writes on; what comes next must not be glued to the rest of that line
    append_event(log, PhaseStarted(phase="later"))
    events = read_events(log)
    assert events[:-1] == complete
    assert isinstance(events[-1], PhaseStarted) and events[-1].phase == "later"


def test_results_of_one_label_per_image_need_baselines(run_copy: Path) -> None:
    results = json.loads((run_copy / "results.json").read_text())
    (run_copy / "results.json").write_text(json.dumps({**results, "baselines": None}))
    with pytest.raises(RunFolderError, match=r"results\.json cannot be read: baselines: must not be null"):
        RunRecord(run_copy)
