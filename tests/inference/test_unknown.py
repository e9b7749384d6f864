"""Photos of something else are called unknown: by predictors, commands and exports, with real weights."""

from __future__ import annotations

import csv
import io
import json
import shutil
from pathlib import Path

import numpy as np
from commands import command
from small_runs import PROBE

import tlkit
from tlkit.inference.export import export_timm


def test_waste_is_unknown_and_pets_are_not(model: tlkit.Run, known: list[Path], waste: list[Path]) -> None:
    predictor = tlkit.load(model.folder)
    of_waste, of_pets = predictor.predict(waste).labels, predictor.predict(known).labels
    assert of_waste.count("unknown") >= 0.9 * len(waste)
    assert of_pets.count("unknown") <= 0.2 * len(known)
    assert set(of_pets) == {"cat", "dog", "unknown"} or set(of_pets) == {"cat", "dog"}
    assert predictor.unknown is not None
    for prediction in predictor.stream([*known, *waste]):
        assert prediction.novelty is not None
        assert (prediction.label == "unknown") == (prediction.novelty > predictor.unknown.threshold)


def test_results_have_the_threshold(model: tlkit.Run) -> None:
    unknown = json.loads((model.folder / "results.json").read_text())["phases"][0]["unknown"]
    predictor = tlkit.load(model.folder)
    assert predictor.unknown is not None
    assert unknown == {
        "features": 80,
        "threshold": predictor.unknown.threshold,
        "wrong_alarms": 0.05,
        "chosen_on": "80 training images, each left out in turn",
        "why_not": None,
    }


def test_it_can_be_turned_off(model: tlkit.Run, waste: list[Path]) -> None:
    predictor = tlkit.load(model.folder, unknown=False)
    labels, probabilities = predictor.predict(waste)
    assert set(labels) <= {"cat", "dog"}
    assert np.allclose(probabilities, tlkit.load(model.folder).predict_proba(waste), atol=1e-6)
    assert next(iter(predictor.stream(waste))).novelty is None
    assert predictor.evaluate(waste, ["cat"] * len(waste)).unknown is None


def test_unknown_before_unclassified(model: tlkit.Run, waste: list[Path]) -> None:
    """Which of the classes it is does not matter for an image of none of them."""
    labels = tlkit.load(model.folder, reject_below=1.0).predict(waste).labels
    assert labels == [
        "unknown" if label == "unknown" else "unclassified"
        for label in tlkit.load(model.folder).predict(waste).labels
    ]


def test_commands(model: tlkit.Run, known: list[Path], waste: list[Path], tmp_path: Path) -> None:
    expected = tlkit.load(model.folder).predict([*waste[:6], *known[:3]]).labels
    paths = [*map(str, [*waste[:6], *known[:3]])]
    assert "unknown" in expected
    rows = list(csv.DictReader(io.StringIO(command("predict", model.folder, *paths, "--csv").stdout)))
    assert [row["label"] for row in rows] == expected
    lines = command("predict", model.folder, *paths, "--json").stdout.splitlines()
    assert [json.loads(line)["label"] for line in lines] == expected
    off = command("predict", model.folder, *paths, "--csv", "--no-unknown").stdout
    assert {row["label"] for row in csv.DictReader(io.StringIO(off))} <= {"cat", "dog"}
    labelled = tmp_path / "labelled"
    for number, path in enumerate(paths):
        copy = labelled / ("cat", "dog")[number % 2] / f"{number}.jpg"
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)
    count = expected.count("unknown")
    assert f"called unknown: {count}; " in command("evaluate", model.folder, labelled).stdout
    scores = json.loads(command("evaluate", model.folder, labelled, "--json").stdout)
    assert (scores["n"], scores["unknown"]) == (len(paths), count)
    off = command("evaluate", model.folder, labelled, "--json", "--no-unknown").stdout
    assert "unknown" not in json.loads(off)


def test_timm_has_no_place_for_it(
    model: tlkit.Run, known: list[Path], waste: list[Path], tmp_path: Path
) -> None:
    folder, images = model.folder / "phases" / "probe" / "model", [*known[:4], *waste[:8]]
    labels = tlkit.load(folder).predict(images).labels
    check = export_timm(folder, tmp_path / "timm", images)
    assert "the label 'unknown'" in check.left_out
    assert check.changed >= labels.count("unknown") > 0
    assert tlkit.load(tmp_path / "timm").unknown is None


def test_too_few_images_have_no_threshold(
    by_class: Path, weights: Path, real_photos: Path, tmp_path: Path
) -> None:
    for kind in ("cat", "dog"):
        (tmp_path / "few" / kind).mkdir(parents=True)
        for number in range(1, 10):
            (tmp_path / "few" / kind / f"{number}.jpg").symlink_to(by_class / kind / f"{number}.jpg")
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(PROBE.format(photos=tmp_path / "few", weights=weights))
    run = tlkit.run(recipe, out=tmp_path / "run")
    unknown = run.results.phases[0].unknown
    assert unknown is not None
    assert (unknown.threshold, unknown.why_not) == (
        None,
        "there are fewer than 20 different training images",
    )
    predictor = tlkit.load(run.folder)
    assert predictor.unknown is None
    assert set(predictor.predict([by_class / "cat" / "1.jpg"]).labels) <= {"cat", "dog"}
