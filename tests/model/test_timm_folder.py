"""Folders that timm saved are classifiers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from timm.models import save_for_hf

import tlkit
from tlkit.data.images import read_image
from tlkit.errors import RunFolderError

SETTINGS = {"input_size": (3, 64, 64), "crop_pct": 0.9, "interpolation": "bilinear"}


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network of timm's with random weights, as timm saves it."""
    folder = tmp_path_factory.mktemp("timm") / "saved"
    torch.manual_seed(1)
    network = timm.create_model("test_resnet", num_classes=3, pretrained_cfg_overlay=SETTINGS)
    save_for_hf(network, folder, {"label_names": ["cat", "dog", "fox"]}, safe_serialization=True)
    return folder


def test_predictions_are_timms(saved: Path, by_class: Path) -> None:
    network = timm.create_model(f"local-dir:{saved}", pretrained=True).eval()
    config = timm.data.resolve_model_data_config(network)
    transform = timm.data.create_transform(**config, is_training=False)
    paths = sorted(by_class.rglob("*.jpg"))[::8]
    with torch.inference_mode():
        rows = network(torch.stack([transform(read_image(path)) for path in paths])).softmax(1).numpy()
    predictor = tlkit.load(saved)
    assert predictor.classes == ("cat", "dog", "fox")
    labels, probabilities = predictor.predict(paths)
    assert probabilities == pytest.approx(rows, abs=1e-4)
    assert labels == [predictor.classes[index] for index in rows.argmax(1)]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda config: config.pop("label_names"), "names none"),
        (lambda config: config["label_names"].append("wolf"), "it names 4"),
        (lambda config: config.update(architecture="../other"), "architecture"),
        (lambda config: config.update(architecture="no_such_network"), "no_such_network"),
        (lambda config: config.update(model_args={"checkpoint_path": "/etc/hostname"}), "checkpoint_path"),
        (lambda config: config["pretrained_cfg"].update(classifier="fc2"), "do not belong together"),
        (lambda config: config["pretrained_cfg"].update(mean=[0.5]), "mean"),
    ],
)
def test_a_folder_that_does_not_fit_is_refused(
    saved: Path, change: Callable[[dict[str, Any]], object], told: str, tmp_path: Path
) -> None:
    config = json.loads((saved / "config.json").read_text())
    change(config)
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "model.safetensors").symlink_to(saved / "model.safetensors")
    with pytest.raises(RunFolderError, match=told):
        tlkit.load(tmp_path)
