"""Computes an exported network in 8-bit integers, and measures what that costs.

Weights have a scale per channel; one for all channels of a layer costs many correct predictions. Scales of
activations come from validation images. Layer norms and the detector of unknown images stay in float32; the
detector gets a threshold of its own, since its features come from the quantised network.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from onnxruntime import quantization
from onnxruntime.quantization.shape_inference import quant_pre_process

from tlkit.data.images import UnreadableImage
from tlkit.data.loader import normalize
from tlkit.data.prefetch import prefetch
from tlkit.errors import ExportError
from tlkit.evaluation.significance import mcnemar
from tlkit.inference.export_checks import Int8Loss, LabelledImage, Outputs
from tlkit.inference.exported import LOGITS, NOVELTY, TENSOR
from tlkit.inference.pixels import read_pixels
from tlkit.model.saving import SavedModel
from tlkit.model.unknown import MIN_IMAGES, choose_threshold

#: How many validation images the scales of activations come from.
CALIBRATED = 128
#: How many labelled images the loss is measured on, at most.
MEASURED = 1000
BATCH = 16


@dataclass(frozen=True)
class Quantized:
    """A quantised network.

    Attributes:
        network: it has the inputs and outputs of the network that it was made of.
        unknown_above: the novelty above which an image is unknown; None: it is not computed.
        loss: what it costs.
    """

    network: onnx.ModelProto
    unknown_above: float | None
    loss: Int8Loss


@dataclass(frozen=True)
class Int8Images:
    """Images of a run for quantising: to calibrate the network, and to measure the loss."""

    calibration: list[LabelledImage]
    measured: list[LabelledImage]


def choose_int8_images(images: Sequence[LabelledImage]) -> Int8Images:
    """Chooses among the images of a run.

    Raises:
        ExportError: too few are left that were not trained on.
    """
    # a final fit trains on every image that is not held out for the test
    split = "val" if any(image.split == "val" for image in images) else "train"
    calibration = _spread([image for image in images if image.split == split], CALIBRATED)
    chosen = {image.path for image in calibration}
    held_out = [image for image in images if image.split in ("val", "test") and image.path not in chosen]
    if len(held_out) < MIN_IMAGES:
        raise ExportError(
            "--int8 calibrates the network on validation images, and measures the loss on others that were "
            f"not trained on: {len(held_out)} of the run's images are left for that, fewer than {MIN_IMAGES}"
        )
    return Int8Images(calibration, _spread(held_out, MEASURED))


def quantize(saved: SavedModel, network: onnx.ModelProto, images: Int8Images) -> Quantized:
    """Quantises a network.

    Args:
        saved: the classifier that it was made of.
        network: maps `TENSOR` to `LOGITS` and perhaps `NOVELTY`.
        images: to calibrate it, and to measure the loss.

    Raises:
        ExportError: one of the images cannot be read.
    """
    quantized = _to_int8(network, _batches(saved, images.calibration))
    before, after = _compute(saved, images.measured, [network, quantized])
    labels = [image.label for image in images.measured]
    correct = [
        np.array([saved.classes[column] for column in outputs.logits.argmax(1)]) == labels
        for outputs in (before, after)
    ]
    test = mcnemar(*correct)
    loss = Int8Loss(
        calibrated=len(images.calibration),
        calibrated_on_val=all(image.split == "val" for image in images.calibration),
        images=len(labels),
        before=int(correct[0].sum()),
        after=int(correct[1].sum()),
        gained=test.gained,
        lost=test.lost,
        p=test.p,
    )
    threshold = None if after.novelty is None else choose_threshold(torch.from_numpy(after.novelty))
    return Quantized(quantized, threshold, loss)


class _Reader(quantization.CalibrationDataReader):  # type: ignore[misc]
    """Hands batches to onnxruntime."""

    def __init__(self, batches: Iterator[NDArray[np.float32]]) -> None:
        self._batches = batches

    def get_next(self) -> dict[str, NDArray[np.float32]] | None:
        batch = next(self._batches, None)
        return None if batch is None else {TENSOR: batch}


def _to_int8(network: onnx.ModelProto, batches: Iterator[NDArray[np.float32]]) -> onnx.ModelProto:
    with tempfile.TemporaryDirectory() as folder:
        source, prepared, result = (
            Path(folder) / f"{name}.onnx" for name in ("source", "prepared", "result")
        )
        onnx.save(network, source)
        # onnxruntime's own inference of shapes fails where the number of images is open
        quant_pre_process(source, prepared, skip_symbolic_shape=True)
        graph = onnx.load(prepared).graph
        norms = {node.name for node in graph.node if node.op_type == "LayerNormalization"}
        quantization.quantize_static(
            prepared,
            result,
            _Reader(batches),
            per_channel=True,
            nodes_to_exclude=sorted(norms | _detector(graph)),
        )
        return onnx.load(result)


def _detector(graph: onnx.GraphProto) -> set[str]:
    """Returns the names of the nodes that novelty depends on and logits do not."""
    producers = {output: node for node in graph.node for output in node.output}

    def behind(output: str) -> set[str]:
        names, waiting = set[str](), [output]
        while waiting:
            node = producers.get(waiting.pop())
            if node is not None and node.name not in names:
                names.add(node.name)
                waiting += node.input
        return names

    return behind(NOVELTY) - behind(LOGITS)


def _compute(
    saved: SavedModel, images: Sequence[LabelledImage], networks: Sequence[onnx.ModelProto]
) -> list[Outputs]:
    """Returns the outputs of each network."""
    sessions = [
        onnxruntime.InferenceSession(network.SerializeToString(), providers=["CPUExecutionProvider"])
        for network in networks
    ]
    rows = [
        [session.run(None, {TENSOR: tensors}) for session in sessions] for tensors in _batches(saved, images)
    ]
    return [
        Outputs(*(np.concatenate(column) for column in zip(*of_network, strict=True)))
        for of_network in zip(*rows, strict=True)
    ]


def _batches(saved: SavedModel, images: Sequence[LabelledImage]) -> Iterator[NDArray[np.float32]]:
    """Yields normalised images ``(B, 3, size, size)``."""
    preprocess = saved.backbone.preprocess
    groups = [images[begin : begin + BATCH] for begin in range(0, len(images), BATCH)]
    tasks = ((None, [partial(read_pixels, image.path, preprocess) for image in group]) for group in groups)
    for _, futures in prefetch(tasks):
        try:
            pixels = np.stack([future.result() for future in futures])
        except UnreadableImage as error:
            raise ExportError(f"an image of the run cannot be read: {error}") from error
        yield normalize(pixels, preprocess).contiguous().numpy()


def _spread(images: Sequence[LabelledImage], count: int) -> list[LabelledImage]:
    """Returns up to `count` images, evenly spaced."""
    return [images[index] for index in np.linspace(0, len(images) - 1, min(count, len(images))).astype(int)]
