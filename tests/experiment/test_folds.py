"""Cross-validation in runs: predictions of images that no model saw, decisions, resuming, reports."""

from __future__ import annotations

import csv
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from processes import Started, execute
from small_runs import BACKBONES

import tlkit
from tlkit.cli.observer import ConsoleObserver
from tlkit.data.loader import normalize
from tlkit.errors import RecipeError, RunFolderError
from tlkit.experiment.fold_files import remove_folds
from tlkit.experiment.record import RunRecord
from tlkit.inference.pixels import read_pixels

RECIPE = """
name = "folded"
seed = 3

[data]
source = "folder"
root = "{photos}"
folds = 4
repeats = 3

[backbone]
{backbone}

[preprocess]
size = 64

[head]
name = "probe"

[training]
epochs = 2
batch_size = 8
precision = "float32"
mirror = true
optimizer = {{ name = "adamw", lr = 1e-3 }}

[[phase]]
name = "probe"
"""
FINE_TUNE = """
[[phase]]
name = "fine-tune"
start_from = "probe"
freeze = {{ name = "all-but-last-blocks", blocks = 1 }}
keep = "{keep}"
"""


def write(folder: Path, photos: Path, text: str = RECIPE, keep: str = "last") -> Path:
    path = folder / "recipe.toml"
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(text.format(photos=photos, backbone=BACKBONES["residual"], keep=keep))
    return path


@pytest.fixture(scope="module")
def dozen(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve photos of each class, in a folder per class."""
    folder = tmp_path_factory.mktemp("dozen")
    for kind in ("cat", "dog"):
        (folder / kind).mkdir()
        for number in range(1, 13):
            (folder / kind / f"{number}.jpg").symlink_to(photos / f"{kind}.{number}.jpg")
    return folder


@pytest.fixture(scope="module")
def folded(dozen: Path, tmp_path_factory: pytest.TempPathFactory) -> tlkit.Run:
    """A cross-validated probe, and a fine-tuning from it."""
    folder = tmp_path_factory.mktemp("folded")
    return tlkit.run(write(folder, dozen, RECIPE + FINE_TUNE), out=folder / "run")


def rows(run: tlkit.Run, phase: str) -> list[dict[str, str]]:
    with (run.folder / "phases" / phase / "predictions.csv").open() as file:
        return list(csv.DictReader(file))


def out_of_fold(run: tlkit.Run, phase: str) -> dict[str, str]:
    """Returns the probability of the first class, as written, by image."""
    return {row["id"]: row["p_cat"] for row in rows(run, phase) if row["split"] == "out-of-fold"}


def test_results_of_folds(folded: tlkit.Run) -> None:
    probe, fine_tune = folded.results.phases
    scores = probe.out_of_fold
    assert probe.test is None and probe.val is None and scores is not None and probe.measured is scores
    assert (scores.n, scores.folds, scores.repeats, len(scores.fold_accuracies)) == (24, 4, 3, 12)
    assert sum(cell.images for cell in scores.confusion) == 24
    low, high = scores.ci95
    assert low < scores.accuracy < high
    assert folded.results.data.folds == 4 and folded.results.data.train == 24
    assert probe.fitted is not None and "by log loss out of fold" in probe.fitted
    assert probe.describe_measurement() == "24 images out of fold (4 folds, drawn 3 times)"
    assert fine_tune.decision is not None and fine_tune.decision.measure == "accuracy"
    assert not list(folded.folder.glob("phases/*/folds"))


def test_every_image_is_predicted_once(folded: tlkit.Run) -> None:
    for phase in ("probe", "fine-tune"):
        ids = [row["id"] for row in rows(folded, phase)]
        assert len(ids) == len(set(ids))
    record = RunRecord(folded.folder)
    assert {image.split for image in record.images} == {"train"}
    assert all(len(image.folds.split()) == 3 for image in record.images)
    predictions = record.phases[0].measured
    assert predictions is not None and len(predictions.ids) == 24


def test_no_model_sees_what_it_predicts(dozen: Path, tmp_path: Path) -> None:
    """With labels drawn by chance, only a model that saw an image could know its label."""
    random = np.random.default_rng(5)
    photos = sorted(dozen.rglob("*.jpg"))
    for index, photo in enumerate(photos):
        folder = tmp_path / "random" / ("cat", "dog")[int(random.permutation(24)[index] < 12)]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{index}.jpg").symlink_to(photo.resolve())
    text = RECIPE.replace('name = "probe"\n\n[training]', 'name = "knn"\nneighbours = 1\n\n[training]')
    run = tlkit.run(write(tmp_path, tmp_path / "random", text), out=tmp_path / "run")
    assert run.results.phases[0].measured.accuracy < 0.8
    predictor = tlkit.load(run.folder)
    images = sorted((tmp_path / "random").rglob("*.jpg"))
    labels = [image.parent.name for image in images]
    assert predictor.evaluate(images, labels).accuracy > 0.9  # the final model has seen them all


def test_the_model_predicts_the_mean_over_image_and_mirror(folded: tlkit.Run, dozen: Path) -> None:
    predictor = tlkit.load(folded.folder, phase="probe")
    assert predictor.mirror
    photo = dozen / "cat" / "1.jpg"
    images = normalize(read_pixels(photo, predictor.preprocess)[None], predictor.preprocess)
    with torch.no_grad():
        logits = [predictor.module(view).double() for view in (images, images.flip(3))]
    assert not torch.allclose(*logits, atol=1e-3)
    expected = (torch.stack(logits).mean(0) / predictor.temperature).softmax(1).numpy()
    assert predictor.predict_proba([photo]) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("keep", [pytest.param("last", marks=pytest.mark.slow), "best"])
def test_without_cached_features_the_predictions_are_the_same(keep: str, dozen: Path, tmp_path: Path) -> None:
    recipe = write(tmp_path, dozen, RECIPE + FINE_TUNE, keep)
    cached = tlkit.run(recipe, out=tmp_path / "cached")
    fresh = tlkit.run(recipe, overrides={"features.cache": False}, out=tmp_path / "fresh")
    for phase in ("probe", "fine-tune"):
        expected = {name: float(value) for name, value in out_of_fold(cached, phase).items()}
        got = {name: float(value) for name, value in out_of_fold(fresh, phase).items()}
        assert got == pytest.approx(expected, abs=2e-3)


def test_the_same_recipe_gives_the_same_numbers_and_another_head_computes_nothing(
    folded: tlkit.Run, dozen: Path, tmp_path: Path
) -> None:
    again = tlkit.run(write(tmp_path, dozen), out=tmp_path / "again")
    assert out_of_fold(again, "probe") == out_of_fold(folded, "probe")
    assert again.results.phases[0].features.computed == 48  # two views; the cache is this test's own
    other = tlkit.run(
        write(tmp_path, dozen), overrides={"head": {"name": "prototype"}}, out=tmp_path / "other"
    )
    use = other.results.phases[0].features
    assert (use.computed, use.reused) == (0, 48)


def test_weights_are_taken_only_if_they_are_better(dozen: Path, tmp_path: Path) -> None:
    recipe = write(tmp_path, dozen, RECIPE + FINE_TUNE)
    ruinous = {"phase.fine-tune.optimizer.lr": 3.0}
    run = tlkit.run(recipe, overrides=ruinous, out=tmp_path / "run")
    probe, fine_tune = run.results.phases
    decision = fine_tune.decision
    assert decision is not None and not decision.taken
    assert decision.describe().startswith("not taken: ")
    assert (fine_tune.epochs, fine_tune.best_epoch, fine_tune.out_of_fold) == (0, 0, probe.out_of_fold)
    models = [run.folder / "phases" / name / "model" / "model.safetensors" for name in ("probe", "fine-tune")]
    assert models[0].read_bytes() == models[1].read_bytes()
    assert out_of_fold(run, "fine-tune") == out_of_fold(run, "probe")


def test_what_is_not_worth_trying_and_what_there_is_no_time_for(dozen: Path, tmp_path: Path) -> None:
    recipe = write(tmp_path, dozen, RECIPE + FINE_TUNE)
    skipped = tlkit.run(recipe, out=tmp_path / "skipped", skip=lambda phase, results: "it is Friday")
    decision = skipped.results.phases[1].decision
    assert decision is not None and decision.describe() == "not taken: it is Friday"
    late = tlkit.run(recipe, out=tmp_path / "late", time_limit=0.0)
    decision = late.results.phases[1].decision
    assert decision is not None and decision.reason == "the time limit was reached"
    assert late.results.phases[0].measured.n == 24


def test_a_time_limit_holds_without_folds(dozen: Path, tmp_path: Path) -> None:
    recipe = write(tmp_path, dozen, (RECIPE + FINE_TUNE).replace("folds = 4\nrepeats = 3\n", ""))
    long = {"phase.fine-tune.epochs": 100_000}
    run = tlkit.run(recipe, overrides=long, out=tmp_path / "run", time_limit=60)
    probe, fine_tune = run.results.phases
    decision = fine_tune.decision
    assert decision is not None and decision.reason is not None and not decision.taken
    assert decision.reason.startswith("it would take about ")
    assert ", and the time limit leaves " in decision.reason
    assert (fine_tune.test, fine_tune.epochs, probe.test is not None) == (probe.test, 0, True)
    assert len(tlkit.load(run.folder).classes) == 2


def test_test_images_stay_test_images(dozen: Path, tmp_path: Path) -> None:
    for kind in ("cat", "dog"):
        for number in range(1, 13):
            folder = tmp_path / "divided" / ("test" if number > 9 else "train") / kind
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{number}.jpg").symlink_to((dozen / kind / f"{number}.jpg").resolve())
    run = tlkit.run(write(tmp_path, tmp_path / "divided"), out=tmp_path / "run")
    (probe,) = run.results.phases
    assert probe.test is not None and probe.out_of_fold is not None
    assert (probe.test.n, probe.out_of_fold.n, probe.measured) == (6, 18, probe.test)


def test_reports_evaluations_and_comparisons(folded: tlkit.Run, dozen: Path, tmp_path: Path) -> None:
    page = tlkit.report(shutil.copytree(folded.folder, tmp_path / "run")).read_text()
    assert "Measured by cross-validation: 24 images out of fold" in page and "test images" not in page
    other = tlkit.run(write(tmp_path, dozen), overrides={"seed": 4}, out=tmp_path / "other")
    comparison = tlkit.compare([folded.folder, other.folder], out=tmp_path / "comparison")
    assert comparison.pairs[0].n == 24


#: Runs a recipe, and waits behind the second fold of fine-tuning, to be killed there.
STALLING = """
import sys, time, tlkit
from tlkit.experiment import folds
write_fold = folds.write_fold
def write_and_wait(context, phase, fold, outcome):
    write_fold(context, phase, fold, outcome)
    if (phase, fold) == ("fine-tune", 1):
        time.sleep(600)
folds.write_fold = write_and_wait
tlkit.run(sys.argv[1], out=sys.argv[2])
"""


def test_a_run_that_is_killed_goes_on_with_the_next_fold(
    dozen: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = write(tmp_path, dozen, RECIPE + FINE_TUNE)
    whole = tlkit.run(recipe, out=tmp_path / "whole")
    out = tmp_path / "killed"
    process = Started(execute, STALLING, recipe, out).process
    second_fold = out / "phases" / "fine-tune" / "folds" / "1.safetensors"
    deadline = time.monotonic() + 300
    while not second_fold.exists() and process.is_alive() and time.monotonic() < deadline:
        time.sleep(0.005)
    process.kill()
    process.join()
    written = second_fold.stat().st_mtime_ns if second_fold.exists() else 0
    assert written, "the run ended before it could be killed"
    resumed = tlkit.run(recipe, out=out, observer=ConsoleObserver())
    assert "resumes: phase probe is finished; fine-tune after 2 folds" in " ".join(
        capsys.readouterr().err.split()
    )
    for phase in ("probe", "fine-tune"):
        assert rows(resumed, phase) == rows(whole, phase)
    assert resumed.results.phases[1].decision == whole.results.phases[1].decision


def test_a_damaged_fold_is_trained_again(dozen: Path, tmp_path: Path) -> None:
    recipe = write(tmp_path, dozen, RECIPE + FINE_TUNE)
    whole = tlkit.run(recipe, out=tmp_path / "whole")
    run = tlkit.run(recipe, phases=["probe"], out=tmp_path / "run")
    folds = run.folder / "phases" / "fine-tune" / "folds"
    folds.mkdir(parents=True)
    (folds / "0.safetensors").write_bytes(b"no fold")
    assert rows(tlkit.run(recipe, out=run.folder), "fine-tune") == rows(whole, "fine-tune")


def test_a_phase_without_the_folds_it_starts_from(dozen: Path, tmp_path: Path) -> None:
    recipe = write(tmp_path, dozen, RECIPE + FINE_TUNE)
    run = tlkit.run(recipe, phases=["probe"], out=tmp_path / "run")
    remove_folds(run.folder / "phases" / "probe" / "folds")
    with pytest.raises(RunFolderError, match=r"folds/0\.safetensors cannot be read"):
        tlkit.run(recipe, out=run.folder)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"data.fractions": {"val": 0.1}}, "folds and fractions exclude each other"),
        ({"data.folds": 1}, "data.folds: .*greater than or equal to 2"),
        ({"data.group": "("}, "data.group: must be a regular expression"),
        ({"data.folds": 13}, "the largest has 12 distinct images; at most 12 folds"),
    ],
)
def test_mistakes(keys: dict[str, Any], message: str, dozen: Path, tmp_path: Path) -> None:
    with pytest.raises((RecipeError, tlkit.DataError), match=message):
        tlkit.run(write(tmp_path, dozen), overrides=keys, out=tmp_path / "run")


def test_without_folds_a_kernel_probe_is_kept_where_no_epoch_is_better(dozen: Path, tmp_path: Path) -> None:
    """Gradient steps begin with the linear form; the weights that are kept are those of the probe."""
    text = (RECIPE + FINE_TUNE).replace("folds = 4\nrepeats = 3\n", "")
    ruinous = {"phase.fine-tune.optimizer.lr": 3.0}
    run = tlkit.run(write(tmp_path, dozen, text, "best"), overrides=ruinous, out=tmp_path / "run")
    probe, fine_tune = run.results.phases
    assert (fine_tune.epochs, fine_tune.best_epoch) == (2, 0)
    assert (fine_tune.val, fine_tune.test) == (probe.val, probe.test)
    models = [run.folder / "phases" / name / "model" / "model.safetensors" for name in ("probe", "fine-tune")]
    assert models[0].read_bytes() == models[1].read_bytes()
