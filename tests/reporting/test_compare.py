"""Several runs on one page."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from commands import command
from scipy.stats import binomtest
from small_runs import two_phases

import tlkit
from tlkit.errors import RunFolderError


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
    assert pair.p == pytest.approx(expected)
    text = comparison.page.read_text()
    significance = "is the most accurate, significantly" if pair.p < 0.05 else "but not significantly"
    assert significance in text
    assert "short" in text and "Pair by pair" in text and (tmp_path / "out" / "pictures").is_dir()


def test_runs_without_common_images_are_not_compared(runs: tuple[Path, Path], tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(runs[0], other)
    splits = other / "splits.csv"
    lines = splits.read_text().splitlines()
    contents = [line.split(",")[5] for line in lines[1:]]
    changed = [line.replace(sha256, sha256[::-1]) for line, sha256 in zip(lines[1:], contents, strict=True)]
    splits.write_text("\n".join([lines[0], *changed]) + "\n")
    comparison = tlkit.compare([runs[0], other], tmp_path / "out")
    assert comparison.pairs[0].n == 0
    text = comparison.page.read_text()
    assert "they cannot be compared" in text
    assert "Not all runs were tested on the same images" in text
    (other / "splits.csv").unlink()
    with pytest.raises(RunFolderError, match=r"splits\.csv does not list all of the images that it predicts"):
        tlkit.compare([runs[0], other], tmp_path / "out")


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
    with pytest.raises(RunFolderError, match="two runs or more"):
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
