"""Exports of classifiers that a format has no place for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from small_runs import BACKBONES

import tlkit
from tlkit.data.loader import normalize
from tlkit.inference.export import export_timm
from tlkit.inference.export_onnx import export_onnx
from tlkit.inference.pixels import read_pixels

RECIPE = """
name = "probe"
seed = 3
data = {{ source = "folder", root = "{photos}", folds = 2 }}
head = "probe"
training = {{ mirror = true }}
preprocess = {{ size = 64 }}

[backbone]
{backbone}

[[phase]]
name = "probe"
"""


@pytest.fixture(scope="module")
def mirrored(by_class: Path, tmp_path_factory: pytest.TempPathFactory) -> tlkit.Run:
    """A probe that predicts the mean over an image and its mirror image."""
    folder = tmp_path_factory.mktemp("mirrored")
    recipe = folder / "recipe.toml"
    recipe.write_text(RECIPE.format(photos=by_class, backbone=BACKBONES["residual"]))
    return tlkit.run(recipe, out=folder / "run")


def test_timm_has_no_place_for_mirror_images_and_kernels(
    mirrored: tlkit.Run, by_class: Path, tmp_path: Path
) -> None:
    predictor = tlkit.load(mirrored.folder, device="cpu")
    head = predictor.module.head
    assert isinstance(head, tlkit.HasLinearForm)
    images = sorted(by_class.rglob("*.jpg"))[::5]
    labels = predictor.predict_proba(images).argmax(1)
    kernel = head.use_linear_form()
    check = export_timm(mirrored.folder / "phases" / "probe" / "model", tmp_path / "timm", images)
    assert ("the head's kernel" in check.left_out) == kernel
    assert "the mean over an image and its mirror image" in check.left_out
    network = timm.create_model(f"local-dir:{tmp_path / 'timm'}", pretrained=True).eval()
    inputs = normalize(
        np.stack([read_pixels(image, predictor.preprocess) for image in images]), predictor.preprocess
    )
    with torch.no_grad():
        logits = network(inputs)
        assert torch.allclose(logits, predictor.module(inputs), atol=1e-4)  # in its linear form now
    assert (check.images, check.changed) == (len(images), int((logits.argmax(1).numpy() != labels).sum()))


def test_onnx_has(mirrored: tlkit.Run, by_class: Path, tmp_path: Path) -> None:
    images = sorted(by_class.rglob("*.jpg"))[::5]
    check = export_onnx(mirrored.folder / "phases" / "probe" / "model", tmp_path / "probe.onnx", images)
    assert (check.images, check.left_out) == (len(images), ())
