"""The report of a cross-validated run whose second phase was not taken."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from report_pages import Page

import tlkit
from tlkit.experiment.record import RunRecord
from tlkit.inference.predictor import Predictor
from tlkit.interpret.attribution import Attribution
from tlkit.plugins.loader import load_registry
from tlkit.reporting.examples_section import (
    Selection,
    least_confident,
    make_examples,
    most_confident_mistakes,
)
from tlkit.reporting.missing import Missing
from tlkit.reporting.pictures import Album
from tlkit.reporting.run_images import RunImages


def test_a_phase_that_was_not_taken_has_no_part_in_the_result(cross_validated: Path) -> None:
    page = Page(cross_validated / "report.html")
    results = json.loads((cross_validated / "results.json").read_text())
    probe, fine_tune = results["phases"]
    assert not fine_tune["decision"]["taken"] and fine_tune["versus"]
    assert "fine-tune was not taken: 30 images are too few" in page.text
    assert "It was not taken: 30 images are too few" in page.text
    assert "Results of probe" in page.text and "points over probe" not in page.text
    answer = page.text[: page.text.index("Balanced accuracy is")]
    assert f"probe{probe['out_of_fold']['accuracy']:.3f}" in answer  # two cells of one row
    assert f"fine-tune{probe['out_of_fold']['accuracy']:.3f}" not in answer
    charts = {path.stem: path.read_text("utf-8") for path in (cross_validated / "pictures").glob("*.svg")}
    for name in ("accuracies", "networks", "confusion", "roc", "reliability", "confidence", "reject-curve"):
        assert "probe" in charts[name] and "fine-tune" not in charts[name], name
    assert "fine-tune" in charts["seconds"]


def test_examples_out_of_fold_say_that_the_final_model_is_explained(cross_validated: Path) -> None:
    page, predictor = Page(cross_validated / "report.html"), tlkit.load(cross_validated, device="cpu")
    images = cross_validated.parent / "images"
    record = RunRecord(cross_validated)
    predictions = record.phases[0].predictions["out-of-fold"]
    outcomes = set()
    for index in [*most_confident_mistakes(predictions), *least_confident(predictions)]:
        name, truth = predictions.ids[index], predictor.classes[predictions.labels[index]]
        predicted = predictor.classes[predictions.predicted[index]]
        (probabilities,) = predictor.predict_proba([images / name])
        answer = predictor.classes[probabilities.argmax()]
        said = "correct" if predicted == truth else f"predicted as {predicted}"
        caption = f"{truth}, {said}, {predictions.confidence[index]:.3f}{name}"
        assert f"{caption}The final model, trained on it: {answer}, {probabilities.max():.3f}" in page.text
        outcomes.add((said == "correct", answer == predicted))
        assert [picture for picture in page.pictures if picture["alt"] == f"Grad-CAM for {answer} of {name}"]
    assert {is_same for _, is_same in outcomes} == {True, False}  # else the test tells nothing
    assert {is_correct for is_correct, _ in outcomes} == {True, False}


def test_an_image_of_which_nothing_contributes_has_no_heat_map(
    cross_validated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def blank(predictor: Predictor, image: Path, *, label: str) -> Attribution:
        pixels = np.zeros((8, 8, 3), np.uint8)
        return Attribution(pixels, np.zeros((8, 8), np.float32), label, 0.9, "Grad-CAM")

    monkeypatch.setattr("tlkit.reporting.examples_section.explain", blank)
    record, missing, registry = RunRecord(cross_validated), Missing(), load_registry()
    predictor, predictions = tlkit.load(cross_validated, device="cpu"), record.phases[0].predictions
    selection = Selection("unsure", "", "", [0])
    with RunImages(record, registry, missing) as images:
        (example,) = make_examples(
            selection,
            predictions["out-of-fold"],
            predictor,
            images,
            Album(tmp_path),
            lambda _: None,
            out_of_fold=True,
        )
    assert example.heat is None and [path.name for path in tmp_path.iterdir()] == ["unsure-1.jpg"]
    answer = re.match(r"The final model, trained on it: (cat|dog), [.\d]+; no map: ", example.explained)
    assert answer and example.explained.endswith(
        f"no part of the image contributes to {answer[1]} in Grad-CAM"
    )


def test_the_most_confused_pairs_are_a_table(cross_validated: Path) -> None:
    scores = json.loads((cross_validated / "results.json").read_text())["phases"][0]["out_of_fold"]
    pairs = [cell for cell in scores["confusion"] if cell[0] != cell[1]]
    page = (cross_validated / "report.html").read_text(encoding="utf-8")
    (table,) = re.findall(r'<table class="sortable" id="confused">.*?</table>', page, re.DOTALL)
    assert pairs
    for label, predicted, count in pairs:
        names = ("cat", "dog")[label], ("cat", "dog")[predicted]
        numbers = f'<td class="n">{count}</td><td class="n">{count / 15:.1%}</td>'
        assert f'<th scope="row">{names[0]}</th><td>{names[1]}</td>{numbers}' in table
