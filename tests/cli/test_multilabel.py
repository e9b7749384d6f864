"""Commands on several labels per image: what is printed, reports, and which refuse."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest
from commands import command
from huggingface_hub import ModelCard
from small_runs import copy_run

import tlkit
from tlkit.analysis.images import image_data
from tlkit.cli.multilabel_text import print_multilabel_scores
from tlkit.evaluation.multilabel import MultilabelOutOfFold
from tlkit.experiment.observer import Observer


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


def test_scores_out_of_fold_are_apart_from_the_classifier_s_thresholds(
    several_labels: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = copy_run(several_labels / "run", tmp_path / "run")
    results = json.loads((folder / "results.json").read_text())
    scores = results["phases"][0]["multilabel"]
    scores["out_of_fold"] = {**scores["test"], "n": 111, "folds": 3, "repeats": 1, "untested": []}
    (folder / "results.json").write_text(json.dumps(results))
    page = tlkit.report(folder).read_text()
    assert "Out of fold: mean average precision" in page and "on 111 images." in page
    assert '<th scope="col" class="n">threshold</th>' in page
    scores["test"] = None
    (folder / "results.json").write_text(json.dumps(results))
    page = tlkit.report(folder).read_text()
    assert '<th scope="col" class="n">threshold</th>' not in page
    assert "at thresholds that were chosen on the other folds" in page
    card = tlkit.card(folder).read_text()
    assert "predicted by a model that was not trained on it" in card and "chosen on the other folds" in card
    print_multilabel_scores(MultilabelOutOfFold(**scores["out_of_fold"]))
    printed = " ".join(capsys.readouterr().out.split())
    assert "at thresholds that were chosen on the other folds" in printed and "threshold " not in printed


def test_the_card_has_the_scores_and_thresholds(several_labels: Path, tmp_path: Path) -> None:
    run = several_labels / "run"
    assert command("card", run, "--out", tmp_path).returncode == 0
    card = ModelCard.load(tmp_path / "README.md")
    scores = json.loads((run / "results.json").read_text())["phases"][0]["multilabel"]["test"]
    low, high = scores["mean_average_precision"]["ci95"]
    by_type = {item.metric_name.partition(" (")[0]: item.metric_value for item in card.data.eval_results}
    assert by_type == {
        "mean average precision": round(scores["mean_average_precision"]["value"], 4),
        "macro F1": round(scores["macro_f1"]["value"], 4),
        "micro F1": round(scores["micro_f1"]["value"], 4),
        "log loss in nats": round(scores["log_loss"], 4),
    }
    assert (
        f"| mean average precision | {by_type['mean average precision']:.3f} | {low:.3f}–{high:.3f} |"
        in card.text
    )
    threshold = scores["per_class"]["red"]["threshold"]
    for text in (
        "Tells which of 2 classes an image has",
        "Probabilities are the sigmoid",
        f"red {threshold:.2f}.",
    ):
        assert text in card.text
    assert "other folds" not in card.text and "not trained on it" not in card.text
    assert "accuracy" not in card.text and "Always predicting" not in card.text


def test_fit_and_evaluate_with_another_separator(several_labels: Path, tmp_path: Path) -> None:
    images, table = several_labels / "images", tmp_path / "labels.csv"
    lines = (images / "few.csv").read_text().splitlines()
    rows = [f"{images}/{line}" for line in lines[1:]]
    table.write_text("\n".join([lines[0], *rows]).replace("|", ";"))
    printed = command("evaluate", several_labels / "run", table, "--separator", ";")
    assert printed.stdout.startswith("30 images") and printed.returncode == 0
    refused = command("evaluate", several_labels / "run", table)
    assert refused.returncode == 2 and "'circle;red' is made of the classes" in " ".join(
        refused.stderr.split()
    )
    data = image_data(table, None, Observer(), "multilabel", ";")
    assert data.source.options["separator"] == ";"
    refused = command("fit", table, "--separator", ";")
    assert refused.returncode == 2 and "--task multilabel" in " ".join(refused.stderr.split())


@pytest.mark.parametrize("name", ["audit", "curve", "choose", "tune", "compare"])
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
