"""Commands on several labels per image: what is printed, reports, and which refuse."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest
from commands import command
from small_runs import copy_run

import tlkit


def test_a_run_is_printed_with_its_classes(several_labels: Path) -> None:
    run = several_labels / "run"
    printed = command("run", run / "recipe.toml", "--out", run)
    assert printed.returncode == 0
    for text in (
        "Mean average precision on",
        "mAP",
        "Classes after linear",
        "circle",
        "macro F1",
        "by chance",
    ):
        assert text in printed.stdout
    assert "The goal of 0.60 is met" in printed.stdout and "accuracy" not in printed.stdout.lower()


def test_predict_prints_all_labels_with_their_probabilities(several_labels: Path) -> None:
    run, images = several_labels / "run", [several_labels / "images" / f"{number}.png" for number in range(6)]
    predicted = list(tlkit.load(run).stream(images))
    lines = command("predict", run, *images).stdout.splitlines()
    for line, expected in zip(lines, predicted, strict=True):
        labels = ", ".join(f"{name} {value:.1%}" for name, value in expected.labels or ())
        assert line.endswith(f": {labels or 'no label'}")
    for line, expected in zip(command("predict", run, *images, "--json").stdout.splitlines(), predicted,
                              strict=True):  # fmt: skip
        answer = json.loads(line)
        assert [(row["class"], row["probability"]) for row in answer["labels"]] == [*(expected.labels or ())]
        assert "label" not in answer and "confidence" not in answer
    rows = list(csv.DictReader(io.StringIO(command("predict", run, *images, "--csv").stdout)))
    assert [row["label"] for row in rows] == [expected.label for expected in predicted]
    assert [row["confidence"].count("|") for row in rows] == [
        max(0, len(expected.labels or ()) - 1) for expected in predicted
    ]


def test_evaluate_prints_scores(several_labels: Path) -> None:
    run, table = several_labels / "run", several_labels / "images" / "few.csv"
    printed = command("evaluate", run, table)
    assert printed.stdout.startswith("30 images") and "mean average precision" in printed.stdout
    refused = command("evaluate", run, table, "--mistakes")
    assert refused.returncode == 2 and "--mistakes is for one label per image" in refused.stderr


def test_the_report_has_the_classes_and_no_empty_sections(several_labels: Path, tmp_path: Path) -> None:
    folder = copy_run(several_labels / "run", tmp_path / "run")
    page = tlkit.report(folder).read_text()
    results = json.loads((folder / "results.json").read_text())["phases"][0]["multilabel"]["test"]
    for text in ("linear has a mean average precision of", 'id="results"', "An image may have several labels",
                 f'{results["per_class"]["red"]["threshold"]:.3f}'):  # fmt: skip
        assert text in page
    assert page.count("<section") == page.count("</section>") == 6
    for absent in ("Confusion", "accuracy", "This report is incomplete", "baseline", "McNemar", "None"):
        assert absent not in page.partition("The recipe as it was run")[0]


@pytest.mark.parametrize("name", ["audit", "curve", "choose", "tune", "compare", "card"])
def test_commands_that_need_one_label_refuse(several_labels: Path, tmp_path: Path, name: str) -> None:
    run = several_labels / "run"
    arguments = {
        "compare": [run, run],
        "tune": [run / "recipe.toml", "--space", "head.dropout=0:0.5", "--out", tmp_path / "out"],
    }
    refused = command(name, *arguments.get(name, [run]))
    assert refused.returncode == 2
    message = " ".join(refused.stderr.split())
    assert 'needs one label per image, and this recipe has task = "multilabel"' in message
