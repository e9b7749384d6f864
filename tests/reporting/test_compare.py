"""Several runs on one page."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from statistics import stdev

import numpy as np
import pytest
from commands import command
from scipy.stats import binomtest
from small_runs import copy_run, two_phases

import tlkit
from tlkit.cli.results_text import print_comparison
from tlkit.errors import DataError, RunFolderError
from tlkit.evaluation.metrics import evaluate
from tlkit.experiment.record import RunRecord


@pytest.fixture(scope="module")
def runs(by_class: Path, fitted: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two runs on the same images, of one epoch and of four."""
    short = tmp_path_factory.mktemp("runs") / "short"
    tlkit.run(two_phases(by_class, backbone={"name": "vgg16-quarter"}, epochs=1), out=short)
    return short, fitted


def correct(run: Path) -> dict[str, bool]:
    lines = (run / "phases" / "fine-tune" / "predictions.csv").read_text().splitlines()[1:]
    rows = [line.split(",") for line in lines]
    return {row[1]: row[2] == row[3] for row in rows if row[0] == "test"}


def altered(run: Path, target: Path, *, seed: int | None = None, not_shared: int = 0) -> Path:
    """Copies a run, with another seed in its recipe, and other contents of some of its test images."""
    copy_run(run, target)
    if seed is not None:
        recipe = target / "recipe.toml"
        recipe.write_text(f"seed = {seed}\n" + recipe.read_text())
    lines = (target / "splits.csv").read_text().splitlines()
    for index in [index for index, line in enumerate(lines) if line.startswith("test,")][:not_shared]:
        cells = lines[index].split(",")
        lines[index] = ",".join([*cells[:5], cells[5][::-1], *cells[6:]])
    (target / "splits.csv").write_text("\n".join(lines) + "\n")
    return target


def with_wrong_predictions(run: Path, target: Path, count: int) -> Path:
    """Copies a run whose last phase predicts so many test images wrongly, and the others correctly."""
    copy_run(run, target)
    file = target / "phases" / "fine-tune" / "predictions.csv"
    rows = [line.split(",") for line in file.read_text().splitlines()]
    tests = [row for row in rows if row[0] == "test"]
    for index, row in enumerate(tests):
        is_cat = (row[2] == "cat") != (index < count)
        row[3:] = ["cat", "0.9", "0.1"] if is_cat else ["dog", "0.1", "0.9"]
    file.write_text("\n".join(",".join(row) for row in rows) + "\n")
    results = json.loads((target / "results.json").read_text())
    probabilities = np.array([row[4:] for row in tests], np.float64)
    scores = evaluate(probabilities, np.array([["cat", "dog"].index(row[2]) for row in tests]))
    results["phases"][-1]["test"] = scores.model_dump(mode="json")
    (target / "results.json").write_text(json.dumps(results))
    return target


def test_runs_are_compared_on_the_same_test_images(runs: tuple[Path, Path], tmp_path: Path) -> None:
    short, long = runs
    comparison = tlkit.compare(runs, tmp_path / "out")
    assert [run.name for run in comparison.runs] == ["short", long.name]
    before, after = correct(short), correct(long)
    gained = sum(after[name] and not before[name] for name in before)
    lost = sum(before[name] and not after[name] for name in before)
    (pair,) = comparison.pairs
    assert (pair.n, pair.gained, pair.lost) == (len(before), gained, lost)
    expected = binomtest(gained, gained + lost).pvalue if gained + lost else 1.0
    assert pair.p == pair.p_holm == pytest.approx(expected)
    assert comparison.images == f"{len(before)} test images that both runs share"
    for run in comparison.runs:  # predictions.csv has seven digits
        assert run.test.model_dump(include={"n", "correct", "confusion"}) == run.own.model_dump(
            include={"n", "correct", "confusion"}
        )
        assert run.test.log_loss == pytest.approx(run.own.log_loss, rel=1e-5)
    text = comparison.page.read_text()
    assert f"Compared on {comparison.images}." in text and comparison.headline in text
    assert "short" in text and "Pair by pair" in text and (tmp_path / "out" / "pictures").is_dir()
    keys = {difference.key: difference.values for difference in comparison.differences}
    assert keys == {"training.epochs": ("1", "4")}
    assert "training.epochs" in text


def test_a_phase_that_was_not_taken_is_not_compared(
    cross_validated: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    other = copy_run(cross_validated, tmp_path / "a-run-with-a-long-name")
    comparison = tlkit.compare([cross_validated, other], tmp_path / "out")
    # in 80 columns, no heading and no number is broken
    monkeypatch.setattr("tlkit.cli.console.PIPE_WIDTH", 80)
    print_comparison(comparison)
    lines = capsys.readouterr().out.splitlines()
    headings = [line.split() for line in lines if line.split()[:2] in (["run", "phase"], ["run", "images"])]
    scores = ["phase", "accuracy", "95%", "interval", "balanced", "macro", "F1"]
    assert headings == [["run", *scores], ["run", "images", "spread", "time"]]
    assert len([line for line in lines if line.startswith(" a-run-with-a-long-name   probe")]) == 1
    probe = RunRecord(cross_validated).phase_results[0]
    assert [run.phase for run in comparison.runs] == ["probe", "probe"]
    assert {run.trainable for run in comparison.runs} == {probe.parameters.trainable}


def test_a_winner_has_to_be_significant_after_the_correction(fitted: Path, tmp_path: Path) -> None:
    best = with_wrong_predictions(fitted, tmp_path / "best", 0)
    middle = with_wrong_predictions(fitted, tmp_path / "middle", 7)
    worst = with_wrong_predictions(fitted, tmp_path / "worst", 12)
    comparison = tlkit.compare([best, middle, worst], tmp_path / "out")
    p_values = [pair.p for pair in comparison.pairs]
    assert p_values == pytest.approx([2 / 2**7, 2 / 2**12, 2 / 2**5])
    corrected = [pair.p_holm for pair in comparison.pairs]
    assert corrected == pytest.approx([2 * 2 / 2**7, 3 * 2 / 2**12, 2 / 2**5])
    assert comparison.headline == "best is the most accurate, significantly: 100.0% of 12 images"
    assert comparison.page.read_text().count("Holm-corrected for 3 comparisons") == 2
    close = with_wrong_predictions(fitted, tmp_path / "close", 6)
    alone = tlkit.compare([best, close], tmp_path / "out")
    assert alone.headline.startswith("best is the most accurate, significantly")  # p = 0.031
    together = tlkit.compare([best, close, worst], tmp_path / "out")
    assert together.headline.endswith("but not significantly against every other run")  # p = 0.062
    equal = tlkit.compare([close, with_wrong_predictions(fitted, tmp_path / "same", 6)], tmp_path / "out")
    assert equal.headline == "No winner: close, same are equally accurate, 50.0% of 12 images"


def test_all_runs_are_scored_on_the_images_that_all_share(fitted: Path, tmp_path: Path) -> None:
    # of 12 test images, the first 4 are not shared; the other run is wrong in the first 6
    other = altered(with_wrong_predictions(fitted, tmp_path / "wrong", 6), tmp_path / "other", not_shared=4)
    perfect = with_wrong_predictions(fitted, tmp_path / "perfect", 0)
    comparison = tlkit.compare([perfect, other], tmp_path / "out")
    assert comparison.images == "8 test images that both runs share"
    assert [(run.test.correct, run.test.n) for run in comparison.runs] == [(8, 8), (6, 8)]
    assert [(run.own.correct, run.own.n) for run in comparison.runs] == [(12, 12), (6, 12)]
    assert "on its own images" in comparison.page.read_text()


@pytest.mark.parametrize(("not_shared", "shared"), [(7, 5), (12, 0)])
def test_too_few_common_images_have_no_winner(
    not_shared: int, shared: int, fitted: Path, tmp_path: Path
) -> None:
    perfect = with_wrong_predictions(fitted, tmp_path / "perfect", 0)
    wrong = with_wrong_predictions(fitted, tmp_path / "wrong", 12)
    other = altered(wrong, tmp_path / "other", not_shared=not_shared)
    done = command("compare", perfect, other, "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    headline = f"No winner: {shared} test images that both runs share are too few for any test"
    assert headline in " ".join(done.stdout.split())
    assert "--images FOLDER" in done.stdout and "only first correct" not in done.stdout
    text = (tmp_path / "out" / "compare.html").read_text()
    assert headline in text and "Pair by pair" not in text and "accuracies say little" in text


def test_a_run_without_its_list_of_images_is_refused(runs: tuple[Path, Path], run_copy: Path) -> None:
    (run_copy / "splits.csv").unlink()
    with pytest.raises(RunFolderError, match=r"splits\.csv does not list all of the images that it predicts"):
        tlkit.compare([runs[0], run_copy], run_copy.parent / "out")


def test_seeds_of_one_recipe_have_a_spread_and_no_winner(fitted: Path, tmp_path: Path) -> None:
    seeds = [
        altered(
            with_wrong_predictions(fitted, tmp_path / f"wrong-{wrong}", wrong), tmp_path / name, seed=seed
        )
        for name, wrong, seed in (("a", 0, 11), ("b", 3, 12), ("c", 6, 13))
    ]
    comparison = tlkit.compare(seeds, tmp_path / "out")
    accuracies = [1.0, 0.75, 0.5]
    assert [run.test.accuracy for run in comparison.runs] == accuracies
    for run in comparison.runs:
        (spread,) = run.spreads
        assert (spread.mean, spread.deviation) == pytest.approx((0.75, stdev(accuracies)))
    assert comparison.headline == "One recipe with 3 seeds: accuracy 0.750 ±0.250 over 3 seeds"
    assert [difference.key for difference in comparison.differences] == ["seed"]
    assert comparison.page.read_text().count("±0.250 over 3 seeds") == 4


def test_images_that_every_run_predicts(
    runs: tuple[Path, Path], photos: Path, by_class: Path, tmp_path: Path
) -> None:
    for kind in ("cat", "dog"):
        (tmp_path / "new" / kind).mkdir(parents=True)
        for number in range(41, 46):
            shutil.copyfile(photos / f"{kind}.{number}.jpg", tmp_path / "new" / kind / f"{number}.jpg")
    comparison = tlkit.compare(runs, tmp_path / "out", images=tmp_path / "new")
    assert not comparison.warnings and comparison.pairs[0].n == 10
    images = sorted((tmp_path / "new").rglob("*.jpg"))
    scores = tlkit.load(runs[1]).evaluate(images, [image.parent.name for image in images])
    measured = comparison.runs[1].test
    assert (measured.correct, measured.confusion) == (scores.correct, scores.confusion)
    assert measured.log_loss == pytest.approx(scores.log_loss, rel=1e-5)
    # images that the runs were trained on are compared too, but nobody wins
    shutil.copyfile(trained_on(runs[0], by_class), tmp_path / "new" / "cat" / "known.jpg")
    done = command("compare", *runs, "--images", tmp_path / "new", "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    printed, page = " ".join(done.stdout.split()), comparison.page.read_text()
    assert "Compared on 11 images of" in printed
    for text in ("No winner: not all of the 11 images", "short was trained or validated on 1 of the images"):
        assert text in printed and text in page
    (tmp_path / "new" / "dog").rename(tmp_path / "new" / "dogs")
    with pytest.raises(DataError, match="short: the classifier does not know 'dogs'"):
        tlkit.compare(runs, tmp_path / "out", images=tmp_path / "new")


def trained_on(run: Path, by_class: Path) -> Path:
    """Returns a photo of a cat that a run was trained on."""
    rows = [line.split(",") for line in (run / "splits.csv").read_text().splitlines()]
    return by_class / next(row[1] for row in rows if row[0] == "train" and row[2] == "cat")


def test_the_command(runs: tuple[Path, Path], tmp_path: Path) -> None:
    done = command("compare", *runs, "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    results = json.loads((runs[1] / "results.json").read_text())
    last = results["phases"][-1]["test"]
    assert all(f"{last[name]:.3f}" in done.stdout for name in ("accuracy", "balanced_accuracy", "macro_f1"))
    page = (tmp_path / "out" / "compare.html").read_text(encoding="utf-8")
    assert f'<td class="n">{last["balanced_accuracy"]:.3f}</td><td class="n">{last["macro_f1"]:.3f}' in page
    assert str(tmp_path / "out" / "compare.html") in done.stdout
    assert command("compare", *runs, "--out", tmp_path / "out").returncode == 0  # replaced


def test_runs_that_cannot_be_compared(runs: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match="at least two runs"):
        tlkit.compare(runs[:1], tmp_path / "out")
    with pytest.raises(RunFolderError, match="the same run is named twice"):
        tlkit.compare([runs[0], runs[0]], tmp_path / "out")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    with pytest.raises(RunFolderError, match="does not contain a comparison"):
        tlkit.compare(runs, tmp_path / "mine")
    unfinished = tmp_path / "unfinished"
    unfinished.mkdir()
    shutil.copyfile(runs[0] / "recipe.toml", unfinished / "recipe.toml")
    done = command("compare", runs[0], unfinished, "--out", tmp_path / "out")
    assert done.returncode == 2
    assert "has finished no phase yet" in done.stderr
