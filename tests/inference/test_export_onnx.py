"""Exported ONNX files: images are resized as Pillow does it, and answers are the model's."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import openvino
import PIL
import pytest
from numpy.typing import NDArray
from onnx_files import colours
from PIL import Image as PillowImage

import tlkit
from tlkit.data.images import read_image
from tlkit.data.loader import normalize
from tlkit.errors import ExportError
from tlkit.inference.export_checks import check_images, read_checked
from tlkit.inference.export_openvino import COMPILED_WITH, FILE, export_openvino
from tlkit.inference.exported import ANSWERS
from tlkit.inference.onnx_graph import surround
from tlkit.model.description import Calibration
from tlkit.model.saving import load_model
from tlkit.plugins.loader import load_registry

SETTINGS = [
    tlkit.Preprocess(size=64),
    tlkit.Preprocess(size=64, crop=0.875, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4)),
    tlkit.Preprocess(size=64, crop=0.9, interpolation="bilinear"),
    tlkit.Preprocess(size=63, crop=0.95, interpolation="lanczos"),
    tlkit.Preprocess(size=64, crop=0.8, resize="squash"),
    tlkit.Preprocess(size=64, resize="pad", mean=(0.5, 0.4, 0.3)),
    tlkit.Preprocess(size=64, resize="pad", crop=0.8, interpolation="lanczos"),
]
#: Smaller and larger than the network's, wide, and so high that Pillow resizes vertically first.
SIZES = [(64, 64), (40, 50), (500, 375), (333, 500), (301, 90), (30, 401), (1600, 1200), (7, 5), (64, 200)]


def tensor_session(preprocess: tlkit.Preprocess) -> Any:
    """A session that returns what the network is given."""
    content = surround(colours(preprocess.size), preprocess, Calibration(temperature=1.0), None)
    content.graph.output.append(next(value for value in content.graph.value_info if value.name == "tensor"))
    return onnxruntime.InferenceSession(content.SerializeToString())


def noise(width: int, height: int) -> PillowImage.Image:
    generator = np.random.default_rng(width * height)
    coarse = generator.integers(0, 256, (height // 4 + 1, width // 4 + 1, 3), dtype=np.uint8)
    enlarged = PillowImage.fromarray(coarse).resize((width, height), PillowImage.Resampling.NEAREST)
    fine = generator.integers(-20, 21, (height, width, 3))
    return PillowImage.fromarray((np.asarray(enlarged) + fine).clip(0, 255).astype(np.uint8))


@pytest.mark.parametrize("preprocess", SETTINGS, ids=lambda settings: f"{settings.resize}-{settings.crop}")
def test_images_are_resized_as_pillow_does(preprocess: tlkit.Preprocess) -> None:
    session = tensor_session(preprocess)
    for width, height in SIZES:
        image = noise(width, height)
        expected = normalize(preprocess(image)[None], preprocess).numpy()
        (tensor,) = session.run(["tensor"], {"images": np.asarray(image)[None]})
        levels = np.abs(tensor - expected) * np.array(preprocess.std, np.float32).reshape(3, 1, 1) * 255
        assert levels.max() < 2.5, (width, height)
        assert (levels > 0.5).mean() < 0.01, (width, height)


def test_the_order_of_the_passes_is_that_of_the_installed_pillow(monkeypatch: pytest.MonkeyPatch) -> None:
    """A high image of noise, where it matters most."""
    image = PillowImage.fromarray(np.random.default_rng(1).integers(0, 256, (500, 80, 3), dtype=np.uint8))
    preprocess = tlkit.Preprocess(size=64)
    expected = preprocess(image).transpose(2, 0, 1)[None].astype(int)
    current = int(PIL.__version__.split(".")[0])
    differing = {}
    for version in (12, 13):
        monkeypatch.setattr(PIL, "__version__", f"{version}.0.0")
        (tensor,) = tensor_session(preprocess).run(["tensor"], {"images": np.asarray(image)[None]})
        differing[version] = float((np.abs(tensor * 255 - expected) > 0.5).mean())
    own = 13 if current >= 13 else 12
    assert differing[own] < 0.01 < 0.1 < differing[25 - own]


def test_nearest_is_refused() -> None:
    preprocess = tlkit.Preprocess(size=8, interpolation="nearest")
    with pytest.raises(ExportError, match="--input tensor"):
        surround(colours(8), preprocess, Calibration(temperature=1.0), None)


def test_raw_photos_get_the_models_answers(
    exported: Path, model: tlkit.Run, photos_of_all: list[Path]
) -> None:
    session = onnxruntime.InferenceSession(exported)
    assert [(value.name, value.shape) for value in session.get_inputs()] == [
        ("images", ["batch", "height", "width", 3])
    ]
    description = json.loads(session.get_modelmeta().custom_metadata_map["tlkit"])
    assert description["versions"]["pillow"] == PIL.__version__
    predictor = tlkit.load(model.folder)
    labels, probabilities = predictor.predict(photos_of_all)
    sizes = set()
    computed = []
    for path, row in zip(photos_of_all, probabilities, strict=True):
        image = np.asarray(read_image(path))
        sizes.add(image.shape)
        outputs = session.run(None, {"images": image[None]})
        answers = dict(zip((value.name for value in session.get_outputs()), outputs, strict=True))
        assert np.abs(answers["probabilities"][0] - row).max() < 1e-2
        assert not answers["unclassified"][0]
        name = description["classes"][answers["label"][0]]
        computed.append("unknown" if answers["unknown"][0] else name)
        assert row.argmax() == answers["label"][0]
        assert answers["unknown"][0] == (answers["novelty"][0] > description["unknown_above"])
    assert len(sizes) > 20
    assert computed == labels
    assert len(photos_of_all) / 3 < labels.count("unknown") < len(photos_of_all)


def test_an_export_with_other_answers_is_noticed(exported: Path, model: tlkit.Run, known: list[Path]) -> None:
    saved = load_model(model.folder / "phases" / "probe" / "model", load_registry())
    checked, session = read_checked(saved, known[::10]), onnxruntime.InferenceSession(exported)

    def run(pixels: NDArray[np.uint8], **changes: Any) -> list[NDArray[Any]]:
        names = [output.name for output in session.get_outputs()]
        outputs = dict(zip(names, session.run(None, {"images": pixels}), strict=True))
        return list({**outputs, **changes}.values())

    assert check_images(saved, checked, run) == 0
    for changes in (
        {"unknown": np.array([True])},
        {"label": np.array([2])},
        {"unclassified": np.array([True])},
    ):
        assert check_images(saved, checked, partial(run, **changes)) > 0, changes
    with pytest.raises(ExportError, match="its probabilities differ"):
        check_images(saved, checked, partial(run, probabilities=np.array([[0.5, 0.5]])))
    with pytest.raises(ExportError, match="its novelty differ"):
        check_images(saved, checked, partial(run, novelty=np.array([2.0])))


def test_images_of_one_size_are_computed_together(exported: Path) -> None:
    session = onnxruntime.InferenceSession(exported)
    images = np.stack([np.asarray(noise(120, 90)), np.asarray(noise(120, 90))[::-1], np.zeros((90, 120, 3))])
    together = session.run(["probabilities"], {"images": images.astype(np.uint8)})[0]
    for image, row in zip(images, together, strict=True):
        alone = session.run(["probabilities"], {"images": image[None].astype(np.uint8)})[0]
        assert np.abs(alone[0] - row).max() < 1e-4
    assert np.abs(together[0] - together[2]).max() > 1e-2


def test_unsure_images_are_unclassified() -> None:
    preprocess = tlkit.Preprocess(size=8)
    calibration = Calibration(temperature=0.1, reject_below=0.5)
    content = surround(colours(8), preprocess, calibration, None)
    session = onnxruntime.InferenceSession(content.SerializeToString())
    images = np.zeros((2, 20, 30, 3), np.uint8)
    images[1, :, :, 2] = 255  # grey, and blue
    answers = session.run(["unclassified", "label", "unknown"], {"images": images})
    assert [answer.tolist() for answer in answers] == [[True, False], [0, 2], [False, False]]


def test_openvino_gives_the_same_from_its_first_call_on() -> None:
    """With ONNX's If, OpenVINO 2026.4 gave zeros there."""
    preprocess = tlkit.Preprocess(size=64)
    content = surround(colours(64), preprocess, Calibration(temperature=1.0), None)
    content.graph.output.append(next(value for value in content.graph.value_info if value.name == "tensor"))
    for size in ((120, 90), (80, 500)):
        network = openvino.Core().read_model(content.SerializeToString())
        compiled = openvino.Core().compile_model(network, "CPU", COMPILED_WITH)
        tensor = compiled(np.asarray(noise(*size))[None])["tensor"]
        levels = np.abs(tensor * 255 - preprocess(noise(*size)).transpose(2, 0, 1))
        assert levels.max() < 2.5
        assert (levels > 0.5).mean() < 0.01


@pytest.mark.slow
def test_openvino_files_have_the_description(model: tlkit.Run, known: list[Path], tmp_path: Path) -> None:
    folder = model.folder / "phases" / "probe" / "model"
    assert export_openvino(folder, tmp_path / "openvino", known[::5]).images == 8
    network = openvino.Core().read_model(tmp_path / "openvino" / FILE)
    description = json.loads(network.get_rt_info("tlkit").value)
    assert description["classes"] == ["cat", "dog"]
    assert {output.get_any_name() for output in network.outputs} == {*ANSWERS, "novelty"}
