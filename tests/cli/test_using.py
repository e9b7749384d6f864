"""The commands that train and use a classifier without a recipe: fit, predict, evaluate, export."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import timm
import torch
from commands import command
from onnx_files import save_onnx
from PIL import Image
from small_runs import two_phases

import tlkit
from tlkit.data.images import read_image
from tlkit.data.loader import normalize
from tlkit.experiment.validation import recipe_problems
from tlkit.inference.exported import ANSWERS


@pytest.fixture(scope="module")
def timm_fitted(by_class: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier that plain timm can load: timm's smallest ResNet with random weights, a trained head."""
    recipe = two_phases(by_class, backbone={"name": "test_resnet", "weights": "none"}, epochs=1)
    return tlkit.run(recipe, out=tmp_path_factory.mktemp("timm") / "run").folder


def test_fit_shows_its_choices_and_leaves_a_recipe_that_runs(by_class: Path, tmp_path: Path) -> None:
    options = ("--backbone", "test_resnet", "--weights", "none", "--folds", 2, "--epochs", 1)
    done = command("fit", by_class, *options, "--out", tmp_path / "run", "--no-report")
    assert done.returncode == 0, done.stderr
    assert "80 images out of fold (2 folds, drawn 10 times)" in done.stdout
    recipe = tlkit.read_recipe(tmp_path / "run", {"training.epochs": 1})
    assert [phase.name for phase in recipe.phases] == ["probe", "fine-tune"]
    assert recipe_problems(recipe, tlkit.load_registry()) == []
    again = command("run", tmp_path / "run", "--plan")
    assert again.returncode == 0
    assert "1 probe: test_resnet + probe" in again.stdout
    assert "  trainable  " in again.stdout


def test_a_list_on_standard_input_of_a_real_process(fitted: Path, by_class: Path) -> None:
    paths = [str(by_class / "cat" / "1.jpg"), str(by_class / "nowhere.jpg")]
    line = [sys.executable, "-m", "tlkit", "predict", str(fitted), "-", "--json"]
    done = subprocess.run(line, input="\n".join(paths), capture_output=True, text=True, check=False)
    assert done.returncode == 1
    good, bad = map(json.loads, done.stdout.splitlines())
    assert good["label"] in ("cat", "dog")
    assert (bad["label"], bad["error"]) == (None, "No such file or directory")


def test_predictions_for_a_person(fitted: Path, by_class: Path) -> None:
    done = command("predict", fitted, by_class / "cat" / "1.jpg", by_class / "dog", "--top", 2)
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    assert len(lines) == 41
    label, confidence, path, *_ = lines[0].split()
    assert label in ("cat", "dog")
    assert 50 <= float(confidence.rstrip("%")) <= 100
    assert path == str(by_class / "cat" / "1.jpg")
    assert "41 images in" in done.stderr and "/s" in done.stderr


def test_predictions_for_a_program_from_a_list(fitted: Path, by_class: Path) -> None:
    paths = [str(by_class / kind / f"{number}.jpg") for kind in ("cat", "dog") for number in (1, 2, 3)]
    expected = tlkit.load(fitted).predict(paths)
    done = command("predict", fitted, "-", "--json", "--top", 2, stdin="\n".join(paths))
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["path"] for line in lines] == paths
    assert [line["label"] for line in lines] == expected.labels
    assert [line["confidence"] for line in lines] == pytest.approx(expected.probabilities.max(1), abs=1e-6)
    assert [len(line["top"]) for line in lines] == [2] * 6
    rows = list(csv.DictReader(io.StringIO(command("predict", fitted, *paths, "--csv").stdout)))
    assert [row["label"] for row in rows] == expected.labels
    assert [row["path"] for row in rows] == paths
    pattern = command("predict", fitted, by_class / "cat" / "*.jpg", "--json")
    assert len(pattern.stdout.splitlines()) == 40


def test_bad_images_among_good_ones(fitted: Path, few_photos: Path) -> None:
    (few_photos / "cat.1.jpg").write_text("words")
    (few_photos / "dog.1.jpg").write_bytes(b"")
    done = command("predict", fitted, few_photos, "--json")
    lines = {Path(line["path"]).name: line for line in map(json.loads, done.stdout.splitlines())}
    assert done.returncode == 1
    assert len(lines) == 30
    assert {name for name, line in lines.items() if line["error"]} == {"cat.1.jpg", "dog.1.jpg"}
    assert lines["dog.1.jpg"]["error"] == "the file is empty"
    assert lines["dog.1.jpg"]["label"] is None
    assert "2 could not be read" in done.stderr


def test_a_model_names_the_plugins_that_its_parts_come_from(fitted: Path) -> None:
    config = json.loads((fitted / "phases" / "fine-tune" / "model" / "config.json").read_text())
    assert config["tlkit"]["plugins"] == {"tlkit-catsdogs": version("tlkit-catsdogs")}


def test_missing_images_among_good_ones(fitted: Path, by_class: Path, tmp_path: Path) -> None:
    done = command("predict", fitted, "nowhere.jpg", by_class / "cat" / "1.jpg", tmp_path, "--json")
    missing, good, empty = map(json.loads, done.stdout.splitlines())
    assert done.returncode == 1
    assert good["label"] in ("cat", "dog")
    assert (missing["path"], missing["error"]) == ("nowhere.jpg", "No such file or directory")
    assert (empty["path"], empty["error"]) == (str(tmp_path), "a folder without images")
    # the rate of so few would be that of the first one
    assert re.search(r"3 images in [\d.]+ s; 2 could not be read", done.stderr)


#: Runs each line of standard input as a command, prints its exit code and output, and at last which of the
#: modules that take seconds were imported.
COMMANDS = """
import json, sys
from commands import command
for line in sys.stdin:
    done = command(*json.loads(line))
    print(json.dumps([done.returncode, done.stdout + done.stderr]), flush=True)
print(json.dumps([name for name in ("torch", "timm", "accelerate", "sklearn") if name in sys.modules]))
"""


def run_in_new_process(*lines: Sequence[object]) -> tuple[list[tuple[int, str]], list[str]]:
    """Runs commands; returns exit codes with the output, and the slow modules that were imported."""
    done = subprocess.run(
        [sys.executable, "-c", COMMANDS],
        input="\n".join(json.dumps(list(map(str, line))) for line in lines),
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
        capture_output=True,
        text=True,
        check=True,
    )
    *outcomes, imported = map(json.loads, done.stdout.splitlines())
    return [tuple(outcome) for outcome in outcomes], imported


def test_what_needs_no_torch_does_not_import_it(tmp_path: Path) -> None:
    empty, none, out = tmp_path / "empty", tmp_path / "none", tmp_path / "out"
    empty.mkdir()
    file, photo = save_onnx(tmp_path / "colours.onnx"), tmp_path / "red.png"
    Image.new("RGB", (30, 20), "red").save(photo)
    mistakes = {
        f"{none} does not exist": [
            ["predict", none, photo],
            ["predict", file, none],
            ["evaluate", none, tmp_path],
            ["explain", none, photo],
            ["visualize", none],
            ["export", none, "--format", "onnx", "--out", out],
            ["serve", none],
            ["next", none, tmp_path],
            ["report", none],
            ["compare", none, none, "--out", out],
            ["card", none],
            ["push", none, "me/none"],
            ["audit", none],
            ["choose", none],
            ["curve", none],
            ["fit", none],
        ],
        f"{none}: 1 problem": [[name, none] for name in ("run", "features", "tune", "manifest", "fetch")],
        f"{empty} holds no images": [
            ["predict", none, empty],
            ["evaluate", none, empty],
            *([name, empty] for name in ("fit", "audit", "choose", "curve", "next")),
        ],
    }
    useful = [["predict", file, photo, "--csv"], ["cache", "list"], ["--help"]]
    lines = [line for of_message in mistakes.values() for line in of_message]
    outcomes, imported = run_in_new_process(*lines, *useful)
    for message, of_message in mistakes.items():
        for line in of_message:
            code, output = outcomes.pop(0)
            assert (code, message in output) == (2, True), (line, output)
    assert [code for code, _ in outcomes] == [0, 0, 0]
    assert f"{photo},red," in outcomes[0][1]
    assert imported == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["predict", "{fitted}", "nowhere.jpg"], "nowhere.jpg does not exist"),
        (["predict", "{fitted}/phases/fine-tun", "{photos}/cat/1.jpg"], "did you mean 'fine-tune'"),
        (["predict", "{fitted}", "{fitted}/phases/bottleneck"], "holds no images"),
        (["evaluate", "{fitted}", "{photos}/cat"], "no classes"),
        (["evaluate", "{fitted}", "{photos}", "--phase", "botleneck"], "did you mean 'bottleneck'"),
        (["fit", "{photos}/cat"], "no classes"),
        (["fit", "{photos}", "--backbone", "resnet81"], "did you mean 'resnet18'"),
        (["fit", "{one}"], "only one class"),
        (["fit", "{empty}"], "class folders without images"),
        (
            ["export", "{fitted}", "--format", "timm", "--out", "{empty}/x"],
            "cannot be exported for timm",
        ),
        (["export", "{fitted}", "--format", "onnx", "--out", "{empty}"], "exists already"),
    ],
)
def test_mistakes(arguments: list[str], message: str, fitted: Path, by_class: Path, tmp_path: Path) -> None:
    shutil.copytree(by_class / "cat", tmp_path / "one" / "cat")
    shutil.copytree(by_class / "cat", tmp_path / "empty" / "cat")
    (tmp_path / "empty" / "dog").mkdir()
    folders = {"fitted": fitted, "photos": by_class, "one": tmp_path / "one", "empty": tmp_path / "empty"}
    done = command(*(argument.format(**folders) for argument in arguments))
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_evaluation_for_a_person_and_a_program(fitted: Path, by_class: Path, tmp_path: Path) -> None:
    done = command("evaluate", fitted, by_class)
    assert done.returncode == 0
    assert "of 80" in done.stdout and "precision" in done.stdout
    assert "Baselines: 0.500 by chance, 0.500 by always predicting cat." in done.stdout.splitlines()
    as_json = json.loads(command("evaluate", fitted, by_class, "--json").stdout)
    scores = f"balanced accuracy {as_json['balanced_accuracy']:.3f}, macro F1 {as_json['macro_f1']:.3f}"
    assert scores in done.stdout.splitlines()
    assert as_json["baselines"] == {"chance": 0.5, "majority": 0.5, "majority_class": "cat"}
    assert "mistakes" not in as_json
    # each photo of a dog is called a cat, and so on
    swapped = tmp_path / "swapped"
    shutil.copytree(by_class / "cat", swapped / "dog")
    shutil.copytree(by_class / "dog", swapped / "cat")
    listed = json.loads(command("evaluate", fitted, swapped, "--json", "--mistakes").stdout)["mistakes"]
    assert len(listed) == as_json["correct"]
    assert listed == sorted(listed, key=lambda mistake: -mistake["confidence"])
    first = listed[0]
    assert Path(first["image"]).parent.name == first["label"] != first["predicted"]
    for_people = command("evaluate", fitted, swapped, "--mistakes").stdout.splitlines()
    assert (
        f"{first['image']}: {first['label']}, predicted as {first['predicted']}" in for_people[-len(listed)]
    )
    lines = [
        "path,label",
        *(f"{kind}/{number}.jpg,{kind}" for kind in ("cat", "dog") for number in range(1, 41)),
    ]
    # beside the photos, in a copy: other tests read the folder
    table = Path(shutil.copytree(by_class, tmp_path / "photos")) / "labels.csv"
    table.write_text("\n".join(lines))
    assert json.loads(command("evaluate", fitted, table, "--json").stdout) == as_json
    paths = [by_class / kind / f"{number}.jpg" for kind in ("cat", "dog") for number in range(1, 41)]
    labels = ["cat"] * 40 + ["dog"] * 40
    assert as_json["correct"] == tlkit.load(fitted).evaluate(paths, labels).correct


def test_api_command_line_and_exports_give_the_same_predictions(
    timm_fitted: Path, by_class: Path, tmp_path: Path
) -> None:
    paths = [by_class / kind / f"{number}.jpg" for kind in ("cat", "dog") for number in range(1, 21)]
    predictor = tlkit.load(timm_fitted)
    labels, probabilities = predictor.predict(paths)
    most_probable = tlkit.load(timm_fitted, unknown=False).predict(paths).labels
    for file_format, name, told in (
        ("timm", "timm", "timm does not support the label 'unknown'"),
        ("onnx", "model.onnx", "same predictions as"),
    ):
        done = command("export", timm_fitted, "--format", file_format, "--out", tmp_path / name)
        assert done.returncode == 0, done.stderr
        assert told in done.stdout
    lines = command("predict", timm_fitted, *paths, "--json").stdout.splitlines()
    assert [json.loads(line)["label"] for line in lines] == labels

    # as a script does that uses timm without tlkit
    network = timm.create_model(f"local-dir:{tmp_path / 'timm'}", pretrained=True).eval()
    config = timm.data.resolve_model_data_config(network)
    transform = timm.data.create_transform(**config, is_training=False)
    with torch.inference_mode():
        logits = network(torch.stack([transform(read_image(path)) for path in paths]))
    by_timm = (logits / predictor.temperature).softmax(1).numpy()
    assert np.abs(by_timm - probabilities).max() < 1e-3
    assert [network.pretrained_cfg["label_names"][index] for index in by_timm.argmax(1)] == most_probable

    # as a program does that has onnxruntime alone
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    metadata = json.loads(session.get_modelmeta().custom_metadata_map["tlkit"])
    assert metadata["classes"] == ["cat", "dog"]
    for path, label, row in zip(paths, labels, probabilities, strict=True):
        by_onnx, most, _, unknown = session.run(list(ANSWERS), {"images": np.asarray(read_image(path))[None]})
        assert np.abs(by_onnx - row).max() < 1e-2
        assert ("unknown" if unknown[0] else metadata["classes"][most[0]]) == label

    # the network alone
    done = command(
        "export", timm_fitted, "--format", "onnx", "--input", "tensor", "--out", tmp_path / "alone.onnx"
    )
    assert done.returncode == 0, done.stderr
    session = onnxruntime.InferenceSession(tmp_path / "alone.onnx")
    pixels = np.stack([predictor.preprocess(read_image(path)) for path in paths])
    inputs = normalize(pixels, predictor.preprocess).contiguous().numpy()
    for batch in (1, 7, len(paths)):
        logits, novelty = session.run(None, {"tensor": inputs[:batch]})
        by_onnx = torch.from_numpy(logits / metadata["temperature"]).softmax(1).numpy()
        assert np.abs(by_onnx - probabilities[:batch]).max() < 1e-3
        unknown = novelty > metadata["unknown_above"]
        assert unknown.tolist() == [label == "unknown" for label in labels[:batch]]


def test_an_export_with_other_predictions_is_deleted(
    timm_fitted: Path, by_class: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tlkit.inference import export

    create = timm.create_model

    def altered(*arguments: object, **options: object) -> torch.nn.Module:
        network = create(*arguments, **options)
        with torch.no_grad():
            network.get_classifier().bias[0] += 0.1
        return network

    monkeypatch.setattr(timm, "create_model", altered)
    model = timm_fitted / "phases" / "fine-tune" / "model"
    with pytest.raises(tlkit.TlkitError, match="was deleted: its logits differ"):
        export.export_timm(model, tmp_path / "out", sorted(by_class.rglob("*.jpg")))
    assert list(tmp_path.iterdir()) == [tmp_path / "cache"] or not (tmp_path / "out").exists()


def test_missing_packages_for_onnx_are_named(
    timm_fitted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tlkit.inference import export_checks
    from tlkit.inference.export_onnx import export_onnx

    monkeypatch.setattr(export_checks, "find_spec", lambda name: None)
    with pytest.raises(tlkit.TlkitError, match=r"pip install 'tlkit\[onnx\]'"):
        export_onnx(timm_fitted / "phases" / "fine-tune" / "model", tmp_path / "x.onnx", [])


def test_a_convolutional_head_on_maps_is_exported_to_onnx_too(
    fitted: Path, by_class: Path, tmp_path: Path
) -> None:
    done = command("export", fitted, "--format", "onnx", "--out", tmp_path / "a.onnx", "--images", by_class)
    assert done.returncode == 0, done.stderr
    assert "on 16 images" in done.stdout
