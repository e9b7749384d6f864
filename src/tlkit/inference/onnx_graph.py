"""What an exported ONNX file computes around the network: its preprocessing, and answers from its logits.

Images are resized as Pillow does it, by two matrix products, of which each rounds to whole numbers. Their
weights are computed in the graph, since they depend on the size of the image. ONNX's own ``Resize`` will not
do: it has no Lanczos, and OpenVINO ignores its ``antialias``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import PIL
from onnxscript import GraphBuilder

from tlkit.errors import ExportError
from tlkit.inference.exported import ANSWERS, IMAGES, MULTILABEL_ANSWERS
from tlkit.model.description import Calibration
from tlkit.parts.preprocess import BORDER, Preprocess

#: From this version on, Pillow resizes vertically first where that is faster.
VERTICAL_FIRST_SINCE = 13

FLOAT, INT64, UINT8, BOOL = ir.DataType.FLOAT, ir.DataType.INT64, ir.DataType.UINT8, ir.DataType.BOOL
#: onnxscript's builder of operators, and what each of its methods returns: the output of a node that it adds.
Ops = Any
Value = Any


def surround(
    network: onnx.ModelProto, preprocess: Preprocess, calibration: Calibration, unknown_above: float | None
) -> onnx.ModelProto:
    """Puts preprocessing in front of a network, and probabilities, a label and flags behind it.

    Args:
        network: normalised images to logits and, where it can tell unknown images, novelty.
        preprocess: its images' preprocessing.
        calibration: how logits become answers.
        unknown_above: the novelty above which an image is unknown, or None.

    Returns:
        A model that takes ``images``, uint8 RGB ``(B, H, W, 3)``, for any B, H and W. It gives
        ``probabilities`` ``(B, classes)`` and ``label``, ``unclassified``, ``unknown`` and, where the network
        has it, ``novelty`` ``(B,)``. Where images may have several labels, it gives ``probabilities`` and
        ``labels``, whether an image has each class, ``(B, classes)``.

    Raises:
        ExportError: the way of resizing has no place in a graph.
    """
    if preprocess.interpolation == "nearest":
        raise ExportError(
            "interpolation 'nearest' cannot be exported, since a graph rounds positions differently: "
            "--input tensor exports the network alone"
        )
    model = ir.from_proto(network)
    graph = model.graph
    op, tensor = GraphBuilder(graph).op, graph.inputs[0]
    images = _declare(ir.Value(), IMAGES, UINT8, ["batch", "height", "width", 3])
    pixels = _normalize(op, _resize(op, images, preprocess), preprocess)
    tensor.replace_all_uses_with(pixels)
    graph.inputs[:] = [images]
    # the network's input keeps its name, so that it can be told from what surrounds it
    pixels.name, pixels.type, pixels.shape = tensor.name, tensor.type, tensor.shape
    logits, *novelty = graph.outputs
    if calibration.thresholds is None:
        answers = _answers(op, logits, novelty[0] if novelty else None, calibration, unknown_above)
    else:
        answers = _label_answers(op, logits, calibration.thresholds)
    graph.outputs[:] = [*answers, *novelty]
    graph.sort()
    return ir.to_proto(model)


def _answers(
    op: Ops,
    logits: Value,
    novelty: Value | None,
    calibration: Calibration,
    unknown_above: float | None,
) -> list[Value]:
    """Returns the outputs that `ANSWERS` names."""
    probabilities = op.Softmax(op.Div(logits, calibration.temperature), axis=1)
    confidence = op.ReduceMax(probabilities, [1], keepdims=0)
    no = op.Less(confidence, 0.0)
    answers = (
        op.ArgMax(probabilities, axis=1, keepdims=0),
        op.Less(confidence, calibration.reject_below or 0.0),
        no if novelty is None else op.Greater(novelty, unknown_above),
    )
    name, *names = ANSWERS
    return [
        _declare(probabilities, name, FLOAT, ["batch", logits.shape[1]]),
        *(
            _declare(value, name, kind, ["batch"])
            for value, name, kind in zip(answers, names, (INT64, BOOL, BOOL), strict=True)
        ),
    ]


def _label_answers(op: Ops, logits: Value, thresholds: Sequence[float]) -> list[Value]:
    """Returns the outputs that `MULTILABEL_ANSWERS` names."""
    probabilities = op.Sigmoid(logits)
    labels = op.GreaterOrEqual(probabilities, op.Constant(value_floats=list(thresholds)))
    return [
        _declare(value, name, kind, ["batch", logits.shape[1]])
        for value, name, kind in zip((probabilities, labels), MULTILABEL_ANSWERS, (FLOAT, BOOL), strict=True)
    ]


def _resize(op: Ops, images: Value, preprocess: Preprocess) -> Value:
    """Resizes and crops as `Preprocess` does: ``(B, 3, size, size)``, whole numbers of 0 to 255."""
    shape = op.Shape(images)
    height, width = op.Gather(shape, 1), op.Gather(shape, 2)
    resized_height, resized_width = _resized_sides(op, height, width, preprocess)
    kernel, size = preprocess.interpolation, preprocess.size
    vertical, rows = _weights(op, height, resized_height, size, kernel)
    horizontal, columns = _weights(op, width, resized_width, size, kernel)
    horizontal = op.Transpose(horizontal, perm=[1, 0])
    if int(PIL.__version__.split(".")[0]) < VERTICAL_FIRST_SINCE:
        resized = _horizontal_first(op, images, vertical, horizontal)
    else:
        less_high, less_wide = op.Sub(height, resized_height), op.Sub(width, resized_width)
        high = op.And(op.Greater(less_high, 0), op.Greater(less_high, op.Mul(less_wide, 2)))
        # the way that is not taken gets one row: the result of ONNX's If is empty in OpenVINO's first call
        rows_if_high, rows_if_not = op.Where(high, height, 1), op.Where(high, 1, height)
        resized = op.Where(
            high,
            _vertical_first(op, *_cut(op, rows_if_high, images, vertical), horizontal),
            _horizontal_first(op, *_cut(op, rows_if_not, images, vertical), horizontal),
        )
    if preprocess.resize != "pad":
        return resized
    inside = op.And(op.Unsqueeze(rows, [1]), op.Unsqueeze(columns, [0]))
    return op.Where(inside, resized, _per_channel(op, BORDER))


def _vertical_first(op: Ops, images: Value, vertical: Value, horizontal: Value) -> Value:
    return _to_bytes(op, op.MatMul(_to_bytes(op, op.MatMul(vertical, _planes(op, images))), horizontal))


def _horizontal_first(op: Ops, images: Value, vertical: Value, horizontal: Value) -> Value:
    return _to_bytes(op, op.MatMul(vertical, _to_bytes(op, op.MatMul(_planes(op, images), horizontal))))


def _planes(op: Ops, images: Value) -> Value:
    return op.Cast(op.Transpose(images, perm=[0, 3, 1, 2]), to=FLOAT)


def _cut(op: Ops, rows: Value, images: Value, vertical: Value) -> tuple[Value, Value]:
    """Returns the first rows of images, and their weights."""
    end = op.Unsqueeze(rows, [0])
    return op.Slice(images, [0], end, [1]), op.Slice(vertical, [0], end, [1])


def _resized_sides(op: Ops, height: Value, width: Value, preprocess: Preprocess) -> tuple[Value, Value]:
    """Returns height and width of the resized image, before it is cropped, as timm computes them."""
    side = math.floor(preprocess.size / preprocess.crop)
    if preprocess.resize == "squash":
        return op.Constant(value_int=side), op.Constant(value_int=side)
    if preprocess.resize == "crop":
        shorter = op.Min(height, width)
        return op.Div(op.Mul(height, side), shorter), op.Div(op.Mul(width, side), shorter)
    longer = op.Max(height, width)
    return _rounded_ratio(op, op.Mul(height, side), longer), _rounded_ratio(op, op.Mul(width, side), longer)


def _rounded_ratio(op: Ops, numerator: Value, denominator: Value) -> Value:
    """Divides integers and rounds, halves to even as Python does; at least 1."""
    whole, twice_rest = op.Div(numerator, denominator), op.Mul(op.Mod(numerator, denominator), 2)
    tie = op.And(op.Equal(twice_rest, denominator), op.Equal(op.Mod(whole, 2), 1))
    up = op.Or(op.Greater(twice_rest, denominator), tie)
    return op.Max(op.Add(whole, op.Cast(up, to=INT64)), 1)


def _weights(op: Ops, length: Value, resized: Value, size: int, kernel: str) -> tuple[Value, Value]:
    """Returns the weights by which one side of an image is resized and cropped at its centre.

    Args:
        op: the builder of operators.
        length: the side's length.
        resized: its length after resizing.
        size: its length after cropping; where that is longer, there is a border.
        kernel: the interpolation.

    Returns:
        The weight of each pixel in each resulting one, ``(size, length)``, and which of these are in the
        image and not in its border, ``(size,)``.
    """
    surplus = op.Sub(resized, size)
    cut = op.Cast(op.Round(op.Div(op.Cast(surplus, to=FLOAT), 2.0)), to=INT64)
    border = op.Neg(op.Div(op.Neg(surplus), 2))
    positions = op.Add(op.Range(0, size, 1), op.Where(op.Less(surplus, 0), border, cut))
    inside = op.And(op.GreaterOrEqual(positions, 0), op.Less(positions, resized))
    # the centre of a resulting pixel among the image's, as a whole number and a fraction: single floats would
    # not be precise enough for large images
    numerator, denominator = op.Mul(op.Add(op.Mul(positions, 2), 1), length), op.Mul(resized, 2)
    whole = op.Div(numerator, denominator)
    fraction = op.Div(
        op.Cast(op.Sub(numerator, op.Mul(whole, denominator)), to=FLOAT), op.Cast(denominator, to=FLOAT)
    )
    steps = op.Cast(op.Sub(op.Unsqueeze(op.Range(0, length, 1), [0]), op.Unsqueeze(whole, [1])), to=FLOAT)
    distance = op.Sub(op.Add(steps, 0.5), op.Unsqueeze(fraction, [1]))
    scale = op.Max(op.Div(op.Cast(length, to=FLOAT), op.Cast(resized, to=FLOAT)), 1.0)
    weights = _kernel(op, op.Abs(op.Div(distance, scale)), kernel)
    weights = op.Div(weights, op.ReduceSum(weights, [1]))
    return op.Where(op.Unsqueeze(inside, [1]), weights, 0.0), inside


def _kernel(op: Ops, x: Value, kernel: str) -> Value:
    """Returns Pillow's filters at distances ``x >= 0``."""
    if kernel == "bilinear":
        return op.Max(op.Sub(1.0, x), 0.0)
    if kernel == "bicubic":
        near = op.Add(op.Mul(op.Mul(op.Sub(op.Mul(1.5, x), 2.5), x), x), 1.0)
        far = op.Mul(op.Sub(op.Mul(op.Add(op.Mul(op.Sub(x, 5.0), x), 8.0), x), 4.0), -0.5)
        return op.Where(op.Less(x, 1.0), near, op.Where(op.Less(x, 2.0), far, 0.0))

    def sinc(x: Value) -> Value:
        angle = op.Max(op.Mul(x, math.pi), 1e-6)  # not 0 / 0
        return op.Div(op.Sin(angle), angle)

    return op.Where(op.Less(x, 3.0), op.Mul(sinc(x), sinc(op.Div(x, 3.0))), 0.0)


def _to_bytes(op: Ops, values: Value) -> Value:
    """Rounds to what a byte holds, halves up as Pillow does."""
    return op.Clip(op.Floor(op.Add(values, 0.5)), 0.0, 255.0)


def _normalize(op: Ops, pixels: Value, preprocess: Preprocess) -> Value:
    centred = op.Sub(op.Div(pixels, 255.0), _per_channel(op, preprocess.mean))
    return op.Div(centred, _per_channel(op, preprocess.std))


def _per_channel(op: Ops, values: Any) -> Value:
    return op.Constant(value=ir.tensor(np.array(values, np.float32).reshape(3, 1, 1)))


def _declare(value: Value, name: str, kind: ir.DataType, shape: list[int | str]) -> Value:
    """Names a value, and says what it is."""
    value.name, value.type, value.shape = name, ir.TensorType(kind), ir.Shape(shape)
    return value
