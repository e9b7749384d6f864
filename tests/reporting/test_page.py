"""The report of a run: its content, its size, and reports of damaged runs."""

from __future__ import annotations

import base64
import csv
import hashlib
import json
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from commands import command
from report_pages import Page
from safetensors.numpy import save_file

import tlkit
from tlkit.errors import RunFolderError
from tlkit.evaluation.significance import holm
from tlkit.experiment.tables import MAX_COLUMNS, PROBABILITIES, prediction_columns
from tlkit.reporting import render
from tlkit.utils.formatting import format_p_value

SECTIONS = ["answer", "data", "phases", "results", "mistakes", "map", "examples", "layers", "reproduce"]
PHASES = ["benchmark", "zero-shot", "bottleneck", "fine-tune"]


class Counting(tlkit.Observer):
    """Counts what is reported of a task's progress."""

    total = done = 0

    @contextmanager
    def progress(self, task: str, total: int, unit: str, done: int = 0) -> Iterator[Callable[[int], None]]:
        """Yields a function that counts."""
        self.total = total

        def tick(count: int) -> None:
            self.done += count

        yield tick


def test_the_page_has_all_parts(embedded: Path) -> None:
    page = Page(embedded / "report.html")
    results = json.loads((embedded / "results.json").read_text())
    assert page.sections == SECTIONS
    last = results["phases"][-1]["test"]
    expectation = f"About {100 * last['accuracy']:.1f}% of new images like these will be labelled correctly"
    kept = ", with the weights that it started from: no epoch was better"
    is_kept = results["phases"][-1]["best_epoch"] == 0
    assert expectation in page.text
    assert f"The classifier is that of fine-tune{kept if is_kept else ''}." in page.text
    evidence = f"Measured on images held out for testing: 80 test images, {last['correct']} correct."
    assert evidence in page.text
    assert "drawn by tlkit-catsdogs" in page.text
    for result in results["phases"]:
        low, high = result["test"]["ci95"]
        assert f"{low:.3f}–{high:.3f}" in page.text
        low, high = result["test"]["ece_ci95"]
        assert low <= result["test"]["ece"] <= high
    comparisons = [versus for result in results["phases"] for versus in result["versus"]]
    for versus, p in zip(comparisons, holm([versus["p"] for versus in comparisons]), strict=True):
        points = f"{100 * (versus['gained'] - versus['lost']) / 80:+.1f} points"
        assert f"{points} over {versus['phase']} ({format_p_value(p)})" in page.text
    assert "(p, Holm-corrected for 5 comparisons)" in page.text
    assert f"95% bootstrap interval {low:.3f} to {high:.3f}" in page.text
    for result in results["phases"]:
        balanced, macro = result["test"]["balanced_accuracy"], result["test"]["macro_f1"]
        assert f"{balanced:.3f}{macro:.3f}" in page.text  # two cells of one row
    assert results["baselines"] == {"chance": 0.5, "majority": 0.5, "majority_class": "cat"}
    assert "always cat0.500baseline: the largest training class" in page.text
    assert "The classes are unequal" not in page.text
    goal = "met" if results["goal_met"] else "missed"
    assert f"The goal of 80.0% is {goal}." in page.text
    assert "without regularisation" in page.text and "with Gaussian blur" in page.text
    assert results["phases"][-1]["name"] in (embedded / "recipe.toml").read_text()


def test_every_picture_is_on_the_page_and_in_the_folder(embedded: Path) -> None:
    page = Page(embedded / "report.html")
    for picture in page.pictures:
        assert picture["alt"] and picture["width"] and picture["height"]
        assert (picture["src"] or "").startswith("data:image/")
    names = {path.name for path in (embedded / "pictures").iterdir()}
    assert len(names) == len(page.pictures)
    charts = {
        "accuracies",
        "split",
        "networks",
        "seconds",
        "confusion",
        "roc",
        "reliability",
        "confidence",
        "reject-curve",
    }
    assert {f"{name}.svg" for name in (*charts, "unlabelled")} <= names
    curves = {f"{kind}-{name}.svg" for kind in ("loss", "accuracy") for name in PHASES if name != "zero-shot"}
    assert curves <= names
    assert all("training" in (embedded / "pictures" / name).read_text(encoding="utf-8") for name in curves)
    assert page.text.count("Training accuracy is measured in training mode") == len(PHASES) - 1
    assert {"sample-1.jpg", "view-fine-tune-8.jpg", "view-benchmark-1.jpg", "unsure-1-heat.jpg"} <= names
    assert len([name for name in names if name.startswith("layer-")]) == 9


def test_no_chart_shows_the_code_of_a_formula(embedded: Path) -> None:
    charts = [path.read_text(encoding="utf-8") for path in (embedded / "pictures").glob("*.svg")]
    assert len(charts) > 8
    assert not [text for text in charts if "mathdefault" in text]


def test_every_table_with_headings_can_be_sorted() -> None:
    folder = Path(render.__file__).parent / "templates"
    tables = [
        table
        for path in folder.glob("*.html")
        for table in re.findall(r"<table[^>]*>(?=\s*<thead>)", path.read_text(encoding="utf-8"))
    ]
    assert len(tables) > 10 and all('class="sortable"' in table for table in tables)


def test_charts_of_phases_are_of_one_height(embedded: Path) -> None:
    heights = [
        picture["height"]
        for picture in Page(embedded / "report.html").pictures
        if str(picture["alt"]).startswith(("Blocks from input", "Seconds: "))
    ]
    assert len(heights) == 2 and len(set(heights)) == 1


def test_it_is_one_small_file_that_asks_for_no_other(embedded: Path) -> None:
    text = (embedded / "report.html").read_text(encoding="utf-8")
    page = Page(embedded / "report.html")
    assert len(text) < 3_000_000
    assert all(address.startswith(("data:", "#")) for address in page.addresses)
    assert not re.search(r"@import|url\(", text)
    # its policy allows one script, the page's own, and nothing from elsewhere
    (script,) = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    allowed = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{allowed}'"
    assert f'<meta http-equiv="Content-Security-Policy" content="{policy}">' in text


@pytest.mark.usefixtures("embedded_cache")
def test_the_same_run_gives_the_same_page(embedded: Path, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(embedded, copy)
    done = command("report", copy)
    assert done.returncode == 0, done.stderr
    assert str(copy / "report.html") in done.stdout
    assert (copy / "report.html").read_text() == (embedded / "report.html").read_text()
    assert {path.name for path in copy.iterdir()} == {path.name for path in embedded.iterdir()}


def lose_last_phase(run: Path) -> None:
    results = json.loads((run / "results.json").read_text())
    results["phases"].pop()
    results["goal_met"] = None
    (run / "results.json").write_text(json.dumps(results))
    (run / "phases" / "fine-tune" / "history.csv").unlink()
    shutil.rmtree(run / "phases" / "fine-tune" / "model")


def lose_results(run: Path) -> None:
    (run / "results.json").unlink()
    shutil.rmtree(run / "phases")


def lose_almost_all(run: Path) -> None:
    for path in run.iterdir():
        if path.name != "recipe.toml":
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def lose_model(run: Path) -> None:
    shutil.rmtree(run / "phases" / "fine-tune" / "model")


def lose_predictions(run: Path) -> None:
    (run / "phases" / "fine-tune" / "predictions.csv").unlink()


@pytest.mark.usefixtures("embedded_cache")
@pytest.mark.parametrize(
    ("damage", "message", "shown"),
    [
        (
            lose_last_phase,
            "Phase fine-tune has not ended: it has trained 2 epochs.",
            "The classifier is that of bottleneck.",
        ),
        (lose_results, "Phase benchmark has not ended", "No phase of catsdogs has ended yet"),
        (lose_almost_all, "Phase benchmark has not ended: it has not begun.", "How to reproduce this run"),
        (lose_model, "The model of phase fine-tune cannot be loaded", "Confusion of fine-tune"),
        (
            lose_predictions,
            "The predictions of phase fine-tune are missing.",
            "The classifier is that of fine-tune.",
        ),
    ],
)
def test_the_report_of_an_interrupted_run_shows_what_there_is(
    damage: Callable[[Path], None], message: str, shown: str, embedded: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "run"
    shutil.copytree(embedded, copy)
    (copy / "report.html").unlink()
    damage(copy)
    page = Page(tlkit.report(copy))
    assert message in page.text
    assert "This report is incomplete." in page.text
    assert any(shown in text for text in (page.text, *(str(picture["alt"]) for picture in page.pictures)))


def test_images_that_have_changed_are_not_shown(odd_names: Path, tmp_path: Path) -> None:
    run, folder = tmp_path / "run", tmp_path / "images"
    shutil.copytree(odd_names, run)
    shutil.copytree(odd_names.parent / "images", folder)
    recipe = (run / "recipe.toml").read_text()
    (run / "recipe.toml").write_text(recipe.replace(str(odd_names.parent / "images"), str(folder)))
    assert [picture for picture in Page(run / "report.html").pictures if "A _third:" in str(picture["alt"])]
    for path in folder.glob("*/*.jpg"):
        path.write_bytes(path.read_bytes() + b"\0")
    page = Page(tlkit.report(run))
    assert "Some images of the run have been changed since and are not shown." in page.text
    assert not [picture for picture in page.pictures if "A _third:" in str(picture["alt"])]
    assert not list((run / "pictures").glob("sample-*"))
    shutil.rmtree(folder)
    assert "The run's images cannot be shown" in Page(tlkit.report(run)).text


@pytest.mark.parametrize(
    ("classes", "images"),
    [
        (200, 300),
        (2, 20_000),
        pytest.param(2, 100_000, marks=pytest.mark.slow),
        pytest.param(200, 10_000, marks=pytest.mark.slow),
    ],
)
def test_many_classes_and_many_images_stay_small(
    classes: int, images: int, embedded: Path, tmp_path: Path
) -> None:
    run = invented(embedded, tmp_path / "run", classes, images)
    page = tlkit.report(run)
    assert page.stat().st_size < 10_000_000
    text = Page(page).text
    assert f"of {images:,} test images" in text
    if classes == 200:
        assert "The 30 of 200 classes with the lowest F1." in text
        # 300 images drawn at random: some classes have over three times those of others
        assert ("The classes are unequal: " in text) == (images == 300)
        assert re.search(r"class \d{3}, predicted as class \d{3}: \d+", text)
        assert re.search(r"The 10 most frequent of [\d,]+\.", text)
        assert re.search(r"The 30 most frequent of [\d,]+ pairs are listed\.", text) or images == 300


def invented(embedded: Path, run: Path, classes: int, images: int) -> Path:
    """A run folder of that size, with predictions drawn at random and neither images nor a model."""
    from tlkit.evaluation.metrics import evaluate, summary

    names = [f"class {number:03}" for number in range(classes)] if classes > 2 else ["cat", "dog"]
    shutil.copytree(embedded, run, ignore=shutil.ignore_patterns("model", "pictures", "report.html"))
    recipe = (run / "recipe.toml").read_text()
    (run / "recipe.toml").write_text(recipe.replace('name = "drawn"', 'name = "gone"'))
    draw = np.random.default_rng(1)
    labels = draw.integers(classes, size=images)
    scores = draw.normal(size=(images, classes))
    scores[np.arange(images), labels] += 3
    chances = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    results = json.loads((run / "results.json").read_text())
    results["classes"] = names
    results["phases"] = [phase for phase in results["phases"] if phase["name"] == "fine-tune"]
    val, test = summary(chances, labels).model_dump(), evaluate(chances, labels).model_dump()
    results["phases"][0].update(val=val, test=test, versus=[])
    (run / "results.json").write_text(json.dumps(results))
    with (run / "phases" / "fine-tune" / "predictions.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(prediction_columns(names))
        for index, row in enumerate(chances):
            cells = [f"{value:.7g}" for value in (row if classes == 2 else [row.max()])]
            rows.writerow(["test", f"{index}.jpg", names[labels[index]], names[row.argmax()], *cells])
    if classes > MAX_COLUMNS:
        save_file({"test": chances.astype(np.float32)}, run / "phases" / "fine-tune" / PROBABILITIES)
    with (run / "splits.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["split", "id", "label", "width", "height", "sha256", "folds"])
        for index, label in enumerate(labels):
            rows.writerow(["test", f"{index}.jpg", names[label], 300 + index % 701, 400, f"{index:064x}", ""])
    return run


def test_names_from_a_run_are_text_not_html(odd_names: Path) -> None:
    text = (odd_names / "report.html").read_text()
    assert "<b onclick" not in text
    assert "&lt;b onclick=alert(1)&gt;&amp;amp;" in text


def test_classes_whose_names_are_alike_or_odd_have_bars_of_their_own(odd_names: Path) -> None:
    page = Page(odd_names / "report.html")
    assert "in so few epochs they saved nothing" in page.text
    split = (odd_names / "pictures" / "split.svg").read_text()
    for name in ("American…$ terrier", "American…l terrier", "_third"):
        assert name in split


@pytest.mark.usefixtures("embedded_cache")
def test_a_part_that_cannot_be_made_is_listed_as_missing(
    embedded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise IndexError("no such dimension")

    monkeypatch.setattr("tlkit.reporting.layers_section.maximize", broken)
    run = tmp_path / "run"
    shutil.copytree(embedded, run)
    page = Page(tlkit.report(run))
    assert page.sections == [name for name in SECTIONS if name != "layers"]
    assert "Not shown: what the layers respond to. IndexError: no such dimension" in page.text


def test_images_are_generated_in_a_folder_of_the_report(
    embedded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stranger's run names where its images were; nothing is written there."""
    monkeypatch.setenv("TLKIT_CACHE", str(tmp_path / "empty"))
    run = tmp_path / "run"
    shutil.copytree(embedded, run)
    observer = Counting()
    page = Page(tlkit.report(run, observer=observer))
    assert page.sections == SECTIONS
    assert not list((tmp_path / "empty").rglob("*.jpg"))
    assert observer.done == observer.total > 9  # a bar that ends where it was said to


def test_a_folder_that_is_not_a_run_or_is_damaged_is_an_error(tmp_path: Path, embedded: Path) -> None:
    with pytest.raises(RunFolderError, match="does not exist"):
        tlkit.report(tmp_path / "nothing")
    with pytest.raises(RunFolderError, match="is not a run folder"):
        tlkit.report(tmp_path)
    copy = tmp_path / "run"
    shutil.copytree(embedded, copy)
    (copy / "results.json").write_text("{")
    done = command("report", copy)
    assert done.returncode == 2
    assert "results.json cannot be read" in done.stderr
    assert (copy / "report.html").is_file()  # the old one is not lost
    (copy / "results.json").write_text("[1]")
    with pytest.raises(RunFolderError, match=r"results\.json cannot be read: must be an object"):
        tlkit.report(copy)


def test_a_run_ends_with_its_report(few_photos: Path, tmp_path: Path) -> None:
    folder = tmp_path / "sorted"
    for kind in ("cat", "dog"):
        (folder / kind).mkdir(parents=True)
        for path in few_photos.glob(f"{kind}.*.jpg"):
            path.rename(folder / kind / path.name)
    out = tmp_path / "run"
    options = ("--backbone", "vgg16-quarter", "--quality", "fast", "--folds", 2)
    done = command("fit", folder, *options, "--out", out)
    assert done.returncode == 0, done.stderr
    assert str(out / "report.html") in done.stdout
    assert "Measured by cross-validation" in Page(out / "report.html").text
    quiet = tmp_path / "quiet"
    command("fit", folder, *options, "--out", quiet, "--no-report")
    assert not (quiet / "report.html").exists()
