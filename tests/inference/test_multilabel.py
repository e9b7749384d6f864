"""A trained classifier of several labels per image: predictions, scores, exports with the same answers."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from drawings import CLASSES
from model_folders import change_config
from onnx_files import colours, save_onnx
from PIL import Image
from small_runs import copy_run

import tlkit
from tlkit.analysis.next_to_label import next_to_label
from tlkit.errors import DataError, ExportError, RunFolderError
from tlkit.inference import worker_prediction
from tlkit.inference.onnx_graph import surround
from tlkit.model.description import Calibration
from tlkit.model.saving import load_model, save_model
from tlkit.plugins.loader import BUILTIN, load_registry


@pytest.fixture(scope="module")
def model(several_labels: Path) -> tlkit.MultilabelPredictor:
    loaded = tlkit.load(several_labels / "run")
    assert isinstance(loaded, tlkit.MultilabelPredictor)
    return loaded


@pytest.fixture(scope="module")
def files(several_labels: Path) -> list[Path]:
    return [several_labels / "images" / f"{number}.png" for number in range(12)]


def test_labels_are_those_above_their_thresholds(model: tlkit.MultilabelPredictor, files: list[Path]) -> None:
    labels, probabilities = model.predict(files)
    assert probabilities.shape == (12, 2) and (model.predict_proba(files) == probabilities).all()
    above = probabilities >= model.thresholds
    assert labels == [tuple(np.array(CLASSES)[row].tolist()) for row in above]
    assert {len(of_image) for of_image in labels} == {0, 1, 2}
    for prediction, of_image, row in zip(model.stream(files, top=2), labels, probabilities, strict=True):
        assert prediction.label == "|".join(of_image)
        assert prediction.labels is not None and dict(prediction.labels) == pytest.approx(
            {name: row[CLASSES.index(name)] for name in of_image}, abs=1e-6
        )
        assert prediction.confidence == pytest.approx(row.max(), abs=1e-6)


def test_evaluate_reads_a_csv_of_either_form(several_labels: Path) -> None:
    run, images = several_labels / "run", several_labels / "images"
    scores = tlkit.evaluate(run, images / "few.csv")
    assert isinstance(scores, tlkit.MultilabelScores) and scores.n == 30
    assert tlkit.evaluate(run, images / "columns.csv") == scores
    with (images / "few.csv").open() as file:
        paths, labels = zip(*list(csv.reader(file))[1:], strict=True)
    assert tlkit.evaluate(run, [images / path for path in paths], labels) == scores
    with pytest.raises(DataError, match="take a CSV file with columns path and label"):
        tlkit.evaluate(run, images)


def test_scores_of_an_engines_workers_are_those_of_one_process(
    several_labels: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = load_registry((*BUILTIN, "engine_parts"))
    monkeypatch.setattr(worker_prediction, "load_registry", lambda: registry)
    run, table = several_labels / "run", several_labels / "images" / "few.csv"
    assert tlkit.evaluate(run, table, engine="pickling") == tlkit.evaluate(run, table)


def test_evaluate_reads_other_separators_and_a_single_image(several_labels: Path, tmp_path: Path) -> None:
    run, images = several_labels / "run", several_labels / "images"
    path = images / "0.png"
    scores = tlkit.evaluate(run, path, "red")
    assert (scores.n, scores.per_class["red"].positives, scores.per_class["circle"].positives) == (1, 1, 0)
    table = tmp_path / "labels.csv"
    table.write_text(f"path,label\n{path},circle;red\n{images / '1.png'},\n")
    scores = tlkit.evaluate(run, table, separator=";")
    assert [row.positives for row in scores.per_class.values()] == [1, 1]
    with pytest.raises(DataError, match=r"a separator is for a CSV file .*: labels are given"):
        tlkit.evaluate(run, path, "red", separator=";")


def test_a_csv_of_some_of_the_classes_is_scored_without_the_others(
    several_labels: Path, tmp_path: Path
) -> None:
    run, images = several_labels / "run", several_labels / "images"
    rows = "".join(f"{images / f'{number}.png'},{label}\n" for number, label in enumerate(["red", "", "red"]))
    (tmp_path / "labels.csv").write_text("path,label\n" + rows)
    columns = rows.replace(",red", ",0,1").replace(",\n", ",0,0\n")
    (tmp_path / "columns.csv").write_text("path,circle,red\n" + columns)
    scores = tlkit.evaluate(run, tmp_path / "labels.csv")
    assert scores.per_class["circle"].average_precision is None
    assert scores.mean_average_precision.value == scores.per_class["red"].average_precision
    assert tlkit.evaluate(run, tmp_path / "columns.csv") == scores


def test_wrong_labels_and_options_are_refused(
    model: tlkit.MultilabelPredictor, several_labels: Path, files: list[Path], tmp_path: Path
) -> None:
    with pytest.raises(DataError, match="does not know 'rad' \\(did you mean 'red'"):
        model.evaluate(files[:1], [["circle", "rad"]])
    with pytest.raises(DataError, match="no image has a label: nothing can be measured"):
        model.evaluate(files[:2], [[], ""])
    with pytest.raises(RunFolderError, match="reject_below is for one label per image"):
        tlkit.load(several_labels / "run", reject_below=0.5)
    with pytest.raises(RunFolderError, match="predicts several labels per image"):
        next_to_label(several_labels / "run", several_labels / "images")
    folder = copy_run(several_labels / "run", tmp_path / "run") / "phases" / "linear" / "model"
    change_config(folder, lambda config: config["tlkit"]["calibration"].update(thresholds=[0.5]))
    with pytest.raises(
        RunFolderError, match=r"config\.json cannot .*thresholds: there are 1 thresholds and 2 classes"
    ):
        tlkit.load(folder)


def test_explain_takes_any_class(model: tlkit.MultilabelPredictor, files: list[Path]) -> None:
    probabilities = model.predict_proba(files[:1])[0]
    for name, probability in zip(CLASSES, probabilities, strict=True):
        shown = tlkit.explain(model, files[0], label=name)
        assert (shown.label, shown.probability) == (name, pytest.approx(probability, abs=1e-4))


@pytest.mark.slow
def test_onnx_has_the_same_answers(fitted: Path, by_class: Path, tmp_path: Path) -> None:
    photos = [by_class / kind / f"{number}.jpg" for kind in ("cat", "dog") for number in (1, 2)]
    saved = load_model(fitted / "phases" / "fine-tune" / "model", load_registry())
    folder, out, thresholds = tmp_path / "model", tmp_path / "model.onnx", (0.3, 0.6)
    save_model(
        folder,
        saved.classifier,
        saved.backbone,
        backbone_table=saved.config.tlkit.backbone.table(),
        head_table=saved.config.tlkit.head.table(),
        classes=saved.classes,
        calibration=Calibration(temperature=1.0, thresholds=thresholds),
    )
    assert tlkit.export(folder, out, format="onnx", images=photos).changed == 0
    loaded = tlkit.load(folder)
    assert isinstance(loaded, tlkit.MultilabelPredictor) and loaded.thresholds == thresholds
    labels, probabilities = loaded.predict(photos)
    session = onnxruntime.InferenceSession(str(out))
    assert [output.name for output in session.get_outputs()] == ["probabilities", "labels"]
    for file, names, row in zip(photos, labels, probabilities, strict=True):
        pixels = np.asarray(Image.open(file).convert("RGB"))[None]
        probable, said = session.run(None, {"images": pixels})
        np.testing.assert_allclose(probable[0], row, atol=1e-2)
        assert tuple(np.array(saved.classes)[said[0]].tolist()) == names
    exported = tlkit.load(out)
    assert isinstance(exported, tlkit.MultilabelPredictor) and exported.predict(photos).labels == labels
    with pytest.raises(ExportError, match="--int8 says what it costs in accuracy"):
        tlkit.export(folder, tmp_path / "8.onnx", format="onnx", images=photos, int8=True)


def test_timm_has_no_place_for_thresholds(several_labels: Path, files: list[Path], tmp_path: Path) -> None:
    check = tlkit.export(several_labels / "run", tmp_path / "timm", format="timm", images=files)
    assert (check.changed, check.left_out) == (0, ("the classes' thresholds",))


def test_the_onnx_graph_compares_each_class_with_its_threshold(tmp_path: Path) -> None:
    preprocess = tlkit.Preprocess(size=8, crop=1.0, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    thresholds = (0.6, 0.7, 0.5)  # of a whole channel's colour, the sigmoid is 0.73, and of none 0.5
    content = surround(colours(8), preprocess, Calibration(temperature=1.0, thresholds=thresholds), None)
    path = save_onnx(
        tmp_path / "colours.onnx", content, input="images", temperature=1.0, thresholds=thresholds
    )
    pixels = np.zeros((2, 9, 12, 3), np.uint8)
    pixels[1, ..., :2] = 255
    session = onnxruntime.InferenceSession(str(path))
    assert [output.name for output in session.get_outputs()] == ["probabilities", "labels"]
    probabilities, labels = session.run(None, {"images": pixels})
    assert labels.tolist() == [[False, False, True], [True, True, True]]
    exported = tlkit.load(path)
    assert isinstance(exported, tlkit.MultilabelPredictor)
    predicted, same = exported.predict(list(pixels))
    assert predicted == [("blue",), ("red", "green", "blue")]
    np.testing.assert_allclose(same, probabilities, atol=1e-6)
