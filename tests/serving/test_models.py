"""Models that are replaced on disk while they are served."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import timm
from onnx_files import png, save_onnx
from PIL import Image
from starlette.testclient import TestClient

from tlkit.inference.predictor import Predictor
from tlkit.serving.app import make_app
from tlkit.serving.models import LoadOptions, Models, ServedModel
from tlkit.serving.service import Service, ServiceLimits


def follow(model: ServedModel) -> str | None:
    """Lets a model see a change, and that the copying is over."""
    return model.refresh() or model.refresh()


def test_a_replaced_model_is_taken_up_whole_or_not_at_all(fitted: Path, tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(fitted / "phases" / "fine-tune" / "model", model)
    models = Models([model], LoadOptions())
    served = models.get("model")
    assert follow(served) is None
    before = served.predictor
    (model / "model.safetensors").write_bytes(b"cut short")
    assert "is not taken up" in str(follow(served))
    assert served.predictor is before
    shutil.rmtree(model)
    assert follow(served) is None
    shutil.copytree(fitted / "phases" / "bottleneck" / "model", model)
    assert str(follow(served)).endswith("is served from now on")
    assert served.predictor is not before


def save_timm(folder: Path, classes: list[str]) -> Path:
    """Writes a folder as timm does, with a network whose weights are random."""
    network = timm.create_model("test_resnet", num_classes=2)
    timm.models.save_for_hf(network, folder, model_config={"label_names": classes}, safe_serialization=True)
    return folder


def test_timms_folder_is_taken_up_once_it_is_copied(tmp_path: Path) -> None:
    served_folder = save_timm(tmp_path / "served", ["cat", "dog"])
    new = save_timm(tmp_path / "new", ["horse", "cow"])
    served = Models([served_folder], LoadOptions()).get(None)
    assert served.predictor.classes == ("cat", "dog")
    shutil.copy(new / "config.json", served_folder)
    assert served.refresh() is None, "it has no checksums: the weights may still be those of cat and dog"
    shutil.copy(new / "model.safetensors", served_folder)
    assert served.refresh() is None
    assert served.predictor.classes == ("cat", "dog")
    assert str(served.refresh()).endswith("is served from now on")
    assert served.predictor.classes == ("horse", "cow")
    image = Image.new("RGB", (200, 200), "red")
    expected = Models([new], LoadOptions()).get(None).predictor.predict_proba([image])
    np.testing.assert_array_equal(served.predictor.predict_proba([image]), expected)


def test_a_folder_that_is_replaced_while_it_is_loaded_is_loaded_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = save_onnx(tmp_path / "colours.onnx")
    served = Models([file], LoadOptions()).get(None)
    save_onnx(file, classes=["rouge", "vert", "bleu"])
    load = served._load

    def load_and_replace() -> Predictor:
        predictor = load()
        save_onnx(tmp_path / "new.onnx", classes=["rot", "gruen", "blau"]).replace(file)
        monkeypatch.setattr(served, "_load", load)
        return predictor

    monkeypatch.setattr(served, "_load", load_and_replace)
    assert follow(served) is None
    assert served.predictor.classes == ("red", "green", "blue")
    assert str(follow(served)).endswith("is served from now on")
    assert served.predictor.classes == ("rot", "gruen", "blau")


def test_whatever_fails_the_next_replacement_is_taken_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = save_onnx(tmp_path / "colours.onnx")
    served = Models([file], LoadOptions()).get(None)

    def fail() -> Predictor:
        raise MemoryError("8 GB")

    with monkeypatch.context() as patched:
        patched.setattr(served, "_load", fail)
        os.utime(file, (0, 0))
        assert follow(served) == "colours: the changed model is not taken up: MemoryError: 8 GB"
    save_onnx(file, classes=["rouge", "vert", "bleu"])
    assert str(follow(served)).endswith("is served from now on")
    assert served.predictor.classes == ("rouge", "vert", "bleu")


def test_an_exported_file_is_served_and_taken_up_when_it_is_replaced(tmp_path: Path) -> None:
    file = save_onnx(tmp_path / "colours.onnx")
    service = Service(Models([file], LoadOptions()), ServiceLimits(max_bytes=1_000_000, max_waiting=8))
    app = make_app(service, token=None, note=lambda _: None)
    blue, headers = png("blue"), {"content-type": "image/png"}
    with TestClient(app, raise_server_exceptions=False) as client:
        assert client.post("/predict", content=blue, headers=headers).json()[0]["label"] == "blue"
        assert client.post("/predict?model=colours", content=blue, headers=headers).status_code == 200
        heat = client.post("/explain", content=blue, headers=headers)
        assert (heat.status_code, "takes the model folder" in heat.text) == (422, True)
        (served,) = service.models
        save_onnx(tmp_path / "new.onnx", classes=["rouge", "vert", "bleu"]).replace(file)
        assert "is served from now on" in str(follow(served))
        assert client.post("/predict", content=blue, headers=headers).json()[0]["label"] == "bleu"
