"""Small ONNX files as `tlkit export` writes them."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import onnx
from onnx import TensorProto, helper
from PIL import Image

from tlkit.inference.export_onnx import OPSET

DESCRIPTION = {
    "format": 1,
    "input": "tensor",
    "classes": ["red", "green", "blue"],
    "preprocess": {
        "size": 8,
        "resize": "crop",
        "crop": 1.0,
        "interpolation": "bicubic",
        "mean": [0.0, 0.0, 0.0],
        "std": [1.0, 1.0, 1.0],
    },
    "temperature": 0.1,
    "reject_below": None,
    "mirror": False,
    "unknown_above": None,
    "precision": "float32",
    "versions": {},
}


def colours(size: int = 8, *, novelty: bool = False) -> onnx.ModelProto:
    """A network whose logits are the mean of each colour, and whose novelty is the mean of all."""
    nodes = [helper.make_node("ReduceMean", ["tensor", "axes"], ["logits"], keepdims=0)]
    outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 3])]
    if novelty:
        nodes.append(helper.make_node("ReduceMean", ["logits", "channels"], ["novelty"], keepdims=0))
        outputs.append(helper.make_tensor_value_info("novelty", TensorProto.FLOAT, ["batch"]))
    graph = helper.make_graph(
        nodes,
        "colours",
        [helper.make_tensor_value_info("tensor", TensorProto.FLOAT, ["batch", 3, size, size])],
        outputs,
        [
            helper.make_tensor("axes", TensorProto.INT64, [2], [2, 3]),
            helper.make_tensor("channels", TensorProto.INT64, [1], [1]),
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10)


def save_onnx(path: Path, content: onnx.ModelProto | None = None, **changes: Any) -> Path:
    """Writes a network, `colours` unless given, with a description that differs in some keys."""
    content = content or colours()
    helper.set_model_props(content, {"tlkit": json.dumps({**DESCRIPTION, **changes})})
    onnx.save(content, path)
    return path


def png(colour: str) -> bytes:
    """An image of one colour, for `colours`."""
    content = io.BytesIO()
    Image.new("RGB", (30, 20), colour).save(content, "PNG")
    return content.getvalue()
