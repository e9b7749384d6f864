"""Exports in 8-bit integers: what they cost is measured on images that were not trained on."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from commands import command
from PIL import Image
from small_runs import BACKBONES

import tlkit
from tlkit.cli.export import describe_int8
from tlkit.errors import ExportError
from tlkit.inference.export_checks import Int8Loss, LabelledImage, run_images
from tlkit.inference.export_onnx import export_onnx
from tlkit.inference.quantization import choose_int8_images

RECIPE = """
name = "held-out"
seed = 1
data = {{ source = "folder", root = "{photos}", fractions = {{ val = 0.25, test = 0.4 }} }}
backbone = {{ {backbone} }}
head = "probe"
preprocess = {{ size = 64 }}

[[phase]]
name = "probe"
"""


@pytest.fixture(scope="module")
def held_out(by_class: Path, tmp_path_factory: pytest.TempPathFactory) -> tlkit.Run:
    """A run with 20 validation images and 32 test images."""
    folder = tmp_path_factory.mktemp("held-out")
    recipe = folder / "recipe.toml"
    backbone = BACKBONES["residual"].replace("\n", ", ")
    recipe.write_text(RECIPE.format(photos=by_class, backbone=backbone))
    return tlkit.run(recipe, out=folder / "run")


def test_it_computes_in_integers_and_says_what_that_costs(held_out: tlkit.Run, tmp_path: Path) -> None:
    file = tmp_path / "int8.onnx"
    done = command("export", held_out.folder, "--format", "onnx", "--int8", "--out", file)
    assert done.returncode == 0, done.stderr
    told = re.search(
        r"calibrated on 20 validation images; of 32 images that were not trained on, too few to show a small "
        r"loss, (\d+) are predicted correctly, (\d+) before \((\d+) gained, (\d+) lost",
        " ".join(done.stdout.split()),
    )
    assert told, done.stdout
    after, before, gained, lost = map(int, told.groups())
    assert after - before == gained - lost
    test = [
        image for image in run_images(held_out.folder / "phases" / "probe" / "model") if image.split == "test"
    ]
    paths, labels = [image.path for image in test], [str(image.label) for image in test]
    predictor, from_file = tlkit.load(held_out.folder), tlkit.load(file)
    assert predictor.evaluate(paths, labels).correct == before
    assert from_file.evaluate(paths, labels).correct == after
    assert (from_file.predict_proba(paths) != predictor.predict_proba(paths)).any()
    assert from_file.unknown is not None and predictor.unknown is not None
    assert from_file.unknown.threshold != predictor.unknown.threshold
    (shipped,) = onnxruntime.InferenceSession(file).run(
        ["probabilities"], {"images": np.asarray(Image.open(paths[0]).convert("RGB"))[None]}
    )
    np.testing.assert_allclose(shipped, from_file.predict_proba(paths[0]), atol=1e-2)
    content = onnx.load(file)
    scales = {value.name: list(value.dims) for value in content.graph.initializer}
    weights = [node for node in content.graph.node if node.op_type == "DequantizeLinear"]
    assert sum(scales[node.input[1]] not in ([], [1]) for node in weights) > 5, "a scale per channel"


def test_calibration_on_training_images_is_told() -> None:
    images = [
        LabelledImage(Path(f"{split}-{number}.png"), "cat", split)
        for split in ("train", "test")
        for number in range(30)
    ]
    chosen = choose_int8_images(images)
    assert {image.split for image in chosen.calibration} == {"train"}
    told = describe_int8(Int8Loss(30, False, 30, before=30, after=30, gained=0, lost=0, p=1.0))
    assert "calibrated on 30 training images (the run has no validation images); of 30 images" in told


def test_a_run_that_held_nothing_out_is_refused(model: tlkit.Run, known: list[Path], tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="0 of the run's images are left"):
        export_onnx(model.folder / "phases" / "probe" / "model", tmp_path / "x.onnx", known, int8=True)
    assert not (tmp_path / "x.onnx").exists()
    done = command("export", model.folder, "--format", "timm", "--int8", "--out", tmp_path / "timm")
    assert (done.returncode, "--int8 is for --format onnx" in done.stderr) == (2, True)
