"""Whole runs on real photos: results, the run folder, reproducibility, and runs of single phases."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from small_runs import Runner, history, predictions, without

import tlkit
from tlkit.errors import RunFolderError
from tlkit.experiment.results import Results


def test_results_follow_the_schema(run: Runner) -> None:
    ended = run()
    text = (ended.folder / "results.json").read_text()
    results = json.loads(text)
    assert results == ended.results.model_dump(mode="json", by_alias=True)
    assert Results.model_validate_json(text, strict=True) == ended.results
    assert list(results) == ["schema", "recipe", "classes", "goal", "goal_met", "data", "baselines", "phases"]
    assert results["schema"] == 1
    assert results["classes"] == ["cat", "dog"]
    assert results["data"] == {
        "train": 16,
        "val": 6,
        "test": 8,
        "per_class": {name: {"train": 8, "val": 3, "test": 4} for name in ("cat", "dog")},
        "unlabelled": 0,
        "rejected": [],
        "about": "",
        "folds": 0,
        "repeats": 0,
        "corrections": "",
        "corrected": [],
    }
    assert results["baselines"] == {"chance": 0.5, "majority": 0.5, "majority_class": "cat"}
    bottleneck, fine_tune = results["phases"]
    assert bottleneck["name"] == "bottleneck"
    assert bottleneck["epochs"] == 3
    assert 1 <= bottleneck["best_epoch"] <= 3
    assert bottleneck["parameters"] == {"trainable": 96 * 2 + 2, "frozen": 372_688}
    assert bottleneck["features"] == {
        "cached": True,
        "computed": 22,
        "reused": 0,
        "bytes": 22 * 96 * 4,
        "why_not": None,
    }
    assert bottleneck["versus"] == []
    assert set(bottleneck["seconds"]) == {"total", "features", "training", "evaluation"}
    assert set(bottleneck["val"]) == {
        *("n", "correct", "accuracy", "ci95", "balanced_accuracy", "macro_f1", "log_loss")
    }
    assert set(bottleneck["test"]) == {*bottleneck["val"], "top5", "auroc", "ece", "ece_ci95", "confusion"}
    assert sum(cell[2] for cell in bottleneck["test"]["confusion"]) == bottleneck["test"]["n"] == 8
    (versus,) = fine_tune["versus"]
    assert versus["phase"] == "bottleneck"
    gained = fine_tune["test"]["correct"] - bottleneck["test"]["correct"]
    assert versus["gained"] - versus["lost"] == gained
    assert results["goal_met"] == (fine_tune["test"]["accuracy"] >= 0.5)


def test_a_run_folder_has_all_its_files(run: Runner) -> None:
    ended = run()
    for name in ("recipe.toml", "run.json", "log.jsonl", "splits.csv"):
        assert (ended.folder / name).is_file()
    for phase in ("bottleneck", "fine-tune"):
        assert len(history(ended, phase)) == 3
        rows = predictions(ended, phase)
        assert [row[0] for row in rows] == ["val"] * 6 + ["test"] * 8
        folder = ended.folder / "phases" / phase
        assert {path.name for path in (folder / "model").iterdir()} == {"config.json", "model.safetensors"}
        assert not (folder / "resume").exists()
    events = [json.loads(line)["event"] for line in (ended.folder / "log.jsonl").read_text().splitlines()]
    assert events.count("epoch") == 6
    assert tlkit.read_recipe(ended.folder / "recipe.toml").phases == ended.recipe.phases


def test_splits_share_no_image(run: Runner) -> None:
    ended = run()
    with (ended.folder / "splits.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len({row["sha256"] for row in rows}) == len(rows) == 30


def test_the_same_recipe_and_seed_give_the_same_results(run: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    options = {"phase.fine-tune.augmentation": {"name": "affine", "rotation": 10, "flip": True, "views": 3}}
    first = run(overrides=options)
    monkeypatch.setenv("TLKIT_CACHE", str(first.folder / "other-cache"))
    second = run(overrides=options)
    assert without(first.results, "seconds") == without(second.results, "seconds")
    other = run(overrides={**options, "seed": 4})
    assert without(other.results, "seconds") != without(first.results, "seconds")


def test_phases_run_one_by_one_give_the_same_as_together(run: Runner, tmp_path: Path) -> None:
    whole = run()
    with pytest.raises(RunFolderError, match="starts from 'bottleneck'"):
        run(out=tmp_path / "parts", phases=["fine-tune"])
    first = run(out=tmp_path / "parts", phases=["bottleneck"])
    assert first.results.goal_met is None
    second = run(out=tmp_path / "parts", phases=["fine-tune"])
    # the first pass computes features for both phases, where both are run together
    skipped = ("seconds", "features")
    assert without(second.results, *skipped) == without(whole.results, *skipped)
    plans = [json.loads((ended.folder / "plan.json").read_text()) for ended in (whole, second)]
    assert plans[0] == plans[1]
    states = [[block["state"] for block in phase["blocks"]] for phase in plans[0]["phases"]]
    assert states == [["frozen"] * 5, ["frozen"] * 4 + ["trainable"]]
