"""Every command is a public function, too, that returns values and prints nothing."""

from __future__ import annotations

import inspect
import re
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
import requests

import tlkit
from tlkit.cli.app import app

#: Commands whose function has another name, and groups of commands.
FUNCTIONS = {"features": "compute_features", "next": "next_to_label"}


def test_every_command_is_a_function() -> None:
    commands = [command.name or command.callback.__name__ for command in app.registered_commands]  # type: ignore[union-attr]
    assert len(commands) > 10
    for name in [
        *(FUNCTIONS.get(name, name) for name in commands),
        "list_cache",
        "prune_cache",
        "clear_cache",
    ]:
        assert callable(getattr(tlkit, name)), name


def test_what_they_return_or_pass_can_be_annotated() -> None:
    for name in tlkit.__all__:
        if inspect.isfunction(function := getattr(tlkit, name)):
            signature = inspect.signature(function)
            passed = signature.parameters.get("ready")
            written = f"{signature.return_annotation} {passed.annotation if passed else ''}"
            types = set(re.findall(r"\b[A-Z]\w*", written))
            assert types <= {*tlkit.__all__, "Callable", "None", "NDArray", "Path"}, name


def test_they_return_values_and_print_nothing(
    fitted: Path, by_class: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    photo = by_class / "cat" / "1.jpg"
    (prediction,) = tlkit.predict(fitted, photo, top=2)
    assert prediction.image == str(photo) and len(prediction.top) == 2
    folder = tmp_path / "one"
    folder.mkdir()
    shutil.copy(photo, folder)
    assert len(tlkit.predict(str(fitted), folder)) == 1
    predictor = tlkit.load(fitted)
    mixed = tlkit.predict(predictor, [photo, np.zeros((9, 9, 3), np.uint8), "nowhere.jpg", photo.parent])
    assert mixed[0].label == prediction.label and len(mixed[0].top) == 1
    assert mixed[3].error == "a folder: give the images in it, or the folder alone"

    scores = tlkit.evaluate(fitted, by_class)
    assert scores.n == 80
    images = [by_class / kind / "2.jpg" for kind in scores.per_class]
    assert tlkit.evaluate(predictor, images, ["cat", "dog"]).n == 2
    assert tlkit.evaluate(fitted, photo, "cat").n == 1

    check = tlkit.export(fitted, tmp_path / "model.onnx", images=by_class / "cat")
    assert check.images == 16 and (tmp_path / "model.onnx").is_file()

    (maximized,) = tlkit.visualize(fitted, "features.0", channels=[1, 3], steps=2)
    assert maximized.images.shape == (2, 128, 128, 3) and maximized.channels == (1, 3)
    for model in (fitted, predictor):
        assert tlkit.explain(model, photo).heat.shape == (128, 128)

    assert len(predictor.predict(folder).labels) == 1
    assert tlkit.features(folder, backbone="vgg16-quarter").shape == (1, 128)
    contents = tlkit.list_cache()
    assert len(contents.columns) == 2 and contents.size > 0
    assert tlkit.prune_cache("1TB") == 0
    assert tlkit.clear_cache().freed >= contents.size and not tlkit.list_cache().columns
    assert capfd.readouterr() == ("", "")


def test_serve_calls_back_when_it_listens(fitted: Path, by_class: Path) -> None:
    addresses: list[str] = []
    listens = threading.Event()

    def ready(_service: object, address: str) -> None:
        addresses.append(address)
        listens.set()

    threading.Thread(
        target=tlkit.serve, args=(fitted,), kwargs={"port": 0, "ready": ready}, daemon=True
    ).start()
    assert listens.wait(60)
    photo = by_class / "cat" / "1.jpg"
    url, headers = f"{addresses[0]}/predict", {"Content-Type": "image/jpeg"}
    answer = requests.post(url, data=photo.read_bytes(), headers=headers, timeout=30)
    assert answer.json()[0]["label"] == tlkit.predict(fitted, photo)[0].label


def test_mistakes(fitted: Path, tmp_path: Path) -> None:
    with pytest.raises(tlkit.TlkitError, match=r"no format 'onxx' \(did you mean 'onnx'\?\)"):
        tlkit.export(fitted, tmp_path / "model", format="onxx")  # type: ignore[arg-type]
    with pytest.raises(tlkit.TlkitError, match="model: the format is missing, one of timm, onnx, openvino"):
        tlkit.export(fitted, tmp_path / "model")
    with pytest.raises(tlkit.TlkitError, match="hf download me/pets --local-dir pets"):
        tlkit.load("hf-hub:me/pets")
    predictor = tlkit.load(fitted)
    assert repr(predictor) == "Predictor(2 classes: cat, dog)"
    with pytest.raises(tlkit.TlkitError, match="unknown, device: cannot be changed once a model is loaded"):
        tlkit.predict(predictor, [], unknown=False, device="cpu")
    with pytest.raises(tlkit.DataError, match="None is no image"):
        predictor.predict(None)  # type: ignore[arg-type]
    with pytest.raises(tlkit.DataError, match="workers load the model themselves"):
        tlkit.predict(predictor, [], engine="ray")
    with pytest.raises(tlkit.TlkitError, match=r"- backbone: no backbone is called 'nope'"):
        tlkit.features(tmp_path / "a.jpg", backbone="nope")
    with pytest.raises(tlkit.DataError, match=r"x.parquet does not exist"):
        tlkit.fit(tmp_path / "x.parquet")
    with pytest.raises(tlkit.DataError, match="there are no labels"):
        tlkit.evaluate(fitted, [tmp_path / "a.jpg"])
    with pytest.raises(tlkit.DataError, match="nowhere does not exist"):
        tlkit.predict(fitted, tmp_path / "nowhere")
