"""Runs with several labels per image, on drawn images: beside a plain torch loop, and out of fold."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from drawings import CLASSES, EPOCHS, drawings_recipe
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, f1_score, precision_recall_curve

import tlkit
from tlkit.errors import RecipeError
from tlkit.experiment.record import RunRecord
from tlkit.experiment.results import PhaseResult
from tlkit.recipe.recipe import read_recipe


@pytest.fixture(scope="module")
def ended(several_labels: Path) -> tlkit.Run:
    """The run that all workers share."""
    return tlkit.run(read_recipe(several_labels / "run"), out=several_labels / "run")


def rows(folder: Path, name: str) -> list[dict[str, str]]:
    with (folder / name).open() as file:
        return list(csv.DictReader(file))


def phase(run: tlkit.Run, name: str) -> PhaseResult:
    result = run.results.phase(name)
    assert result is not None
    return result


def test_metrics_are_those_of_a_plain_torch_loop(ended: tlkit.Run, several_labels: Path) -> None:
    parts = {split: [row for row in rows(ended.folder, "splits.csv") if row["split"] == split]
             for split in ("train", "val", "test")}  # fmt: skip
    features, labels = {}, {}
    for split, images in parts.items():
        encoded = tlkit.load(ended.folder).features([several_labels / "images" / row["id"] for row in images])
        features[split] = torch.from_numpy(encoded)
        labels[split] = np.array([[name in row["label"].split("|") for name in CLASSES] for row in images])
    probabilities = plain_loop(features, labels["train"])
    written = rows(ended.folder / "phases" / "linear", "predictions.csv")
    for split, expected in probabilities.items():
        own = [[float(row[f"p_{name}"]) for name in CLASSES] for row in written if row["split"] == split]
        assert split == "train" or np.abs(np.array(own) - expected).max() < 0.005
    scores = phase(ended, "linear").multilabel
    assert scores is not None and scores.test is not None
    precision = average_precision_score(labels["test"], probabilities["test"])
    assert abs(scores.test.mean_average_precision.value - precision) < 0.002
    answers = np.zeros(labels["test"].shape, bool)
    for column in range(2):
        precisions, recalls, steps = precision_recall_curve(
            labels["val"][:, column], probabilities["val"][:, column]
        )
        f1 = (2 * precisions * recalls / (precisions + recalls).clip(1e-9)).round(9)[:-1]
        best = int(np.flatnonzero(f1 == f1.max())[-1])
        below = np.r_[0, steps][best]
        answers[:, column] = probabilities["test"][:, column] >= (steps[best] + below) / 2
    for average, estimate in (("macro", scores.test.macro_f1), ("micro", scores.test.micro_f1)):
        assert abs(f1_score(labels["test"], answers, average=average) - estimate.value) < 0.002


def plain_loop(
    features: dict[str, torch.Tensor], labels: NDArray[np.bool_]
) -> dict[str, NDArray[np.float32]]:
    """Trains a linear layer on features as any tutorial does, and returns probabilities."""
    torch.manual_seed(0)
    layer = torch.nn.Linear(features["train"].shape[1], labels.shape[1])
    parameters = [{"params": [layer.weight], "weight_decay": 0.2}, {"params": [layer.bias]}]
    optimizer = torch.optim.SGD(parameters, lr=0.03, momentum=0.9, nesterov=True)
    loss, targets = torch.nn.BCEWithLogitsLoss(), torch.from_numpy(labels).float()
    for _ in range(EPOCHS):
        optimizer.zero_grad()
        loss(layer(features["train"]), targets).backward()
        optimizer.step()
    with torch.no_grad():
        return {split: layer(values).sigmoid().numpy() for split, values in features.items()}


def test_the_run_folder_has_labels_thresholds_and_history(ended: tlkit.Run) -> None:
    result = phase(ended, "linear")
    assert ended.results.goal_met and ended.results.baselines is None
    assert result.multilabel is not None and result.multilabel.val is not None and result.test is None
    predictions = rows(ended.folder / "phases" / "linear", "predictions.csv")
    assert list(predictions[0]) == ["split", "id", "label", "predicted", "p_circle", "p_red"]
    thresholds = dict(zip(CLASSES, result.multilabel.thresholds, strict=True))
    for row in predictions:
        above = [name for name in CLASSES if float(row[f"p_{name}"]) >= thresholds[name]]
        assert row["predicted"] == "|".join(above)
    assert {row["label"] for row in predictions} == {"", "circle", "red", "circle|red"}
    record = RunRecord(ended.folder)
    (linear,) = record.phases
    assert len(linear.history) == EPOCHS and {image.label for image in record.images} > {None, "circle|red"}
    assert all(metrics.scores and metrics.scores.accuracy is None for metrics in linear.history)
    model = tlkit.load(ended.folder)
    assert model.thresholds == result.multilabel.thresholds


def test_out_of_fold(several_labels: Path, weights: Path, tmp_path: Path) -> None:
    images, adamw = several_labels / "images", {"name": "adamw", "lr": 1e-3}
    spec = {"source": {"name": "csv", "separator": "|"}, "root": str(images), "folds": 3}
    phases = [
        {"name": "probe", "head": {"name": "probe", "kernel": False}},
        {"name": "linear", "epochs": 3, "keep": "best", "optimizer": adamw},
        {"name": "more", "epochs": 2, "start_from": "linear", "optimizer": adamw},
    ]
    ended = tlkit.run(drawings_recipe(images, weights, data=spec, phase=phases), out=tmp_path / "run")
    for result in ended.results.phases:
        assert result.multilabel is not None and result.multilabel.test is None
        scores = result.multilabel.out_of_fold
        # of "more", two folds are enough
        assert scores is not None and scores.untested == ()
        assert (scores.n, scores.folds) == ((160, 2) if result.name == "more" else (240, 3))
        predictions = rows(ended.folder / "phases" / result.name, "predictions.csv")
        has = np.array([[c in row["label"].split("|") for c in CLASSES] for row in predictions])
        said = np.array([[c in row["predicted"].split("|") for c in CLASSES] for row in predictions])
        assert scores.micro_f1.value == pytest.approx(f1_score(has, said, average="micro"))
    probe, decision = phase(ended, "probe"), phase(ended, "more").decision
    assert probe.multilabel is not None and probe.multilabel.measured.mean_average_precision.value > 0.8
    assert probe.fitted is not None and probe.fitted.startswith("linear")
    # average precision is no mean over images: the loss decides
    assert decision is not None and decision.measure == "loss" and decision.taken
    assert decision.gain is not None and decision.gain > 0


def test_a_class_that_a_split_lacks_is_named(several_labels: Path, weights: Path, tmp_path: Path) -> None:
    lines = (several_labels / "images" / "labels.csv").read_text().splitlines()[:41]
    rows = lines.copy()
    for number, name in ((1, "blue"), (2, "green"), (3, "green")):
        rows[number] += name if rows[number].endswith(",") else f"|{name}"
    (tmp_path / "few.csv").write_text("\n".join(rows))
    source = {"name": "csv", "separator": "|", "file": str(tmp_path / "few.csv")}
    data = {"source": source, "root": str(several_labels / "images")}
    notes: list[str] = []

    class Notes(tlkit.Observer):
        def note(self, text: str) -> None:
            notes.append(text)

    tlkit.run(drawings_recipe(several_labels / "images", weights, data=data), out=tmp_path / "run",
              plan_only=True, observer=Notes())  # fmt: skip
    assert (
        "no validation image has blue, green: no threshold is chosen, it is 0.5; no test image has blue"
        in [note.partition(": not scored")[0] for note in notes]
    )
    rows = [line.replace("|red", "").replace("red", "").replace("circle|", "circle") for line in lines]
    (tmp_path / "few.csv").write_text("\n".join(rows))
    with pytest.raises(RecipeError, match="source 'csv' has one class, 'circle': it takes two"):
        tlkit.run(drawings_recipe(several_labels / "images", weights, data=data), out=tmp_path / "run")


@pytest.mark.parametrize(
    ("tables", "problem"),
    [
        ({"head": "prototype"}, "'prototype' is not meant for task = \"multilabel\": there are linear"),
        ({"head": {"name": "knn", "neighbours": 3}}, "'knn' is not meant for"),
        (
            {"training": {"loss": "focal"}},
            "'focal' is not meant for task = \"multilabel\": there are binary-",
        ),
        ({"data": {"source": "csv", "root": "{drawn}"}}, "data: source 'csv' gives one label per image"),
        (
            {"task": "multiclass", "training": {}},
            "data: the source gives several labels per image: set task",
        ),
        (
            {"task": "multiclass", "training": {"loss": "binary-cross-entropy"}},
            "'binary-cross-entropy' is not meant for task = \"multiclass\"",
        ),
    ],
)
def test_parts_that_do_not_fit_the_task_are_refused(
    several_labels: Path, weights: Path, tmp_path: Path, tables: dict[str, Any], problem: str
) -> None:
    if "data" in tables:
        lines = (several_labels / "images" / "labels.csv").read_text().splitlines(keepends=True)
        one = tmp_path / "one.csv"
        one.write_text("".join(line for line in lines if not line.endswith(",\n") and "|" not in line))
        source = {"name": "csv", "file": str(one)}
        tables = {"data": {"source": source, "root": str(several_labels / "images")}}
    with pytest.raises(RecipeError) as caught:
        tlkit.run(drawings_recipe(several_labels / "images", weights, **tables), out=tmp_path / "run")
    assert problem in str(caught.value)
