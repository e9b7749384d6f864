"""Exported ONNX files as models: the model's answers, and strangers' files."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from commands import command
from onnx import TensorProto, helper
from onnx_files import colours, save_onnx
from PIL import Image

import tlkit
from tlkit.data import loader
from tlkit.errors import RunFolderError
from tlkit.inference.exported import MAX_BYTES, normalize
from tlkit.parts.preprocess import Preprocess


def test_an_exported_file_gives_the_models_answers(
    exported: Path, model: tlkit.Run, photos_of_all: list[Path]
) -> None:
    predictor, from_file = tlkit.load(model.folder), tlkit.load(exported)
    for expected, prediction in zip(
        predictor.stream(photos_of_all, top=2), from_file.stream(photos_of_all, top=2), strict=True
    ):
        assert (prediction.image, prediction.label) == (expected.image, expected.label)
        assert [name for name, _ in prediction.top] == [name for name, _ in expected.top]
        assert prediction.confidence == pytest.approx(expected.confidence, abs=1e-4)
        assert prediction.novelty == pytest.approx(expected.novelty, abs=1e-4)
    labels = ["cat"] * 20 + ["dog"] * 20
    of_model, of_file = (model.evaluate(photos_of_all[:40], labels) for model in (predictor, from_file))
    assert (of_file.correct, of_file.unknown) == (of_model.correct, of_model.unknown)
    assert of_file.log_loss == pytest.approx(of_model.log_loss, abs=1e-4)


def test_pixels_are_normalised_as_for_torch_to_the_bit() -> None:
    pixels = np.arange(3 * 256).astype(np.uint8).reshape(1, 16, 16, 3)  # each value in each channel
    preprocess = Preprocess(16, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    expected = loader.normalize(pixels, preprocess).numpy()
    np.testing.assert_array_equal(normalize(pixels, preprocess), expected)


def test_memory_is_kept_from_batch_to_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    monkeypatch.setattr("tlkit.inference.predictor.keep_freed_memory", lambda: calls.append("kept"))
    tlkit.load(save_onnx(tmp_path / "colours.onnx"))
    assert calls == ["kept"]


def test_its_thresholds_can_be_changed(exported: Path, photos_of_all: list[Path]) -> None:
    plain = tlkit.load(exported, unknown=False)
    assert set(plain.predict(photos_of_all).labels) == {"cat", "dog"}
    assert next(plain.stream(photos_of_all)).novelty is None
    unsure = tlkit.load(exported, unknown=False, reject_below=1.0)
    assert "unclassified" in unsure.predict(photos_of_all).labels


def test_commands_take_it(
    exported: Path, model: tlkit.Run, photos_of_all: list[Path], by_class: Path, tmp_path: Path
) -> None:
    paths = list(map(str, photos_of_all[30:60]))
    rows = [
        [
            row["label"]
            for row in csv.DictReader(io.StringIO(command("predict", kind, *paths, "--csv").stdout))
        ]
        for kind in (exported, model.folder)
    ]
    assert rows[0] == rows[1]
    scores = [
        json.loads(command("evaluate", kind, by_class, "--json").stdout) for kind in (exported, model.folder)
    ]
    assert scores[0]["correct"] == scores[1]["correct"]
    for line, told in (
        (("explain", exported, paths[0]), "takes the model folder"),
        (("predict", exported, paths[0], "--phase", "probe"), "leave --phase probe out"),
        (("predict", exported, paths[0], "--device", "meta"), "on the CPU"),
        (("export", exported, "--format", "onnx", "--out", tmp_path / "again.onnx"), "is not a model folder"),
    ):
        done = command(*line)
        assert (done.returncode, told in done.stderr) == (2, True), done.stderr


def test_the_network_alone_is_a_model_too(tmp_path: Path) -> None:
    predictor = tlkit.load(save_onnx(tmp_path / "colours.onnx", reject_below=0.5))
    images = [Image.new("RGB", (30, 20), colour) for colour in ("red", "lime", "blue", "grey")]
    assert predictor.predict(images).labels == ["red", "green", "blue", "unclassified"]
    with pytest.raises(RunFolderError, match="takes the model folder"):
        predictor.features(images)


def with_external_data() -> onnx.ModelProto:
    content = colours()
    tensor = content.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.ClearField("int64_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/hostname")
    return content


def with_an_external_constant() -> onnx.ModelProto:
    content = with_external_data()
    tensor = content.graph.initializer.pop()
    content.graph.node.insert(0, helper.make_node("Constant", [], ["axes"], value=tensor))
    return content


def with_a_loop() -> onnx.ModelProto:
    """A network that never ends."""
    content = colours()
    body = helper.make_graph(
        [helper.make_node("Identity", ["true"], ["on"]), helper.make_node("Identity", ["before"], ["after"])],
        "body",
        [
            helper.make_tensor_value_info("step", TensorProto.INT64, []),
            helper.make_tensor_value_info("true", TensorProto.BOOL, []),
            helper.make_tensor_value_info("before", TensorProto.FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("after", TensorProto.FLOAT, None),
        ],
    )
    content.graph.initializer.append(helper.make_tensor("yes", TensorProto.BOOL, [], [True]))
    content.graph.node.insert(0, helper.make_node("Loop", ["", "yes", "tensor"], ["looped"], body=body))
    content.graph.node[1].input[0] = "looped"
    return content


def with_another_domain() -> onnx.ModelProto:
    content = colours()
    content.graph.node[0].domain = "com.example"
    content.opset_import.append(helper.make_opsetid("com.example", 1))
    return content


def without_logits() -> onnx.ModelProto:
    content = colours()
    content.graph.node[0].output[0] = content.graph.output[0].name = "scores"
    return content


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (with_external_data, "in another file"),
        (with_an_external_constant, "in another file"),
        (with_a_loop, "has Loop"),
        (with_another_domain, "not ONNX's own"),
        (without_logits, "cannot be computed: .*logits"),
        (lambda: colours(9), "cannot be computed"),
    ],
)
def test_a_file_that_no_export_wrote_is_refused(
    make: Callable[[], onnx.ModelProto], told: str, tmp_path: Path
) -> None:
    file = save_onnx(tmp_path / "stranger.onnx", make())
    with pytest.raises(RunFolderError, match=told) as refused:
        tlkit.load(file)
    assert str(file) in str(refused.value)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"format": 2}, "newer tlkit"),
        ({"classes": ["a", "b"]}, r"gives \[\(1, 3\)\]"),
        ({"classes": ["a", "a", "b"]}, "'a' appears twice"),
        ({"preprocess": None}, "preprocess"),
        ({"more": 1}, "more"),
        ({"unknown_above": 0.5}, "cannot be computed: .*novelty"),
    ],
)
def test_metadata_must_fit(changes: dict[str, object], told: str, tmp_path: Path) -> None:
    file = save_onnx(tmp_path / "changed.onnx", **changes)
    with pytest.raises(RunFolderError, match=told):
        tlkit.load(file)


def test_others_files_are_refused_with_the_reason(tmp_path: Path) -> None:
    others = tmp_path / "others.onnx"
    onnx.save(colours(), others)
    text = tmp_path / "text.onnx"
    text.write_text("no protocol buffer\n" * 10)
    whole = save_onnx(tmp_path / "whole.onnx").read_bytes()
    cut = tmp_path / "cut.onnx"
    cut.write_bytes(whole[:-20])
    large = tmp_path / "large.onnx"
    large.touch()
    os.truncate(large, MAX_BYTES + 1)  # takes no room on the disk
    for file, told in (
        (others, "was not written by tlkit"),
        (text, "is not an ONNX file"),
        (cut, "is not an ONNX file"),
        (large, "larger than|bytes of memory"),
    ):
        with pytest.raises(RunFolderError, match=told):
            tlkit.load(file)
