"""Exports a trained classifier to ONNX; an export whose answers differ is deleted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch

from tlkit.data.loader import normalize
from tlkit.errors import ExportError
from tlkit.inference.export_checks import (
    CheckedImages,
    ExportCheck,
    Outputs,
    check_images,
    check_installed,
    check_is_free,
    check_outputs,
    compute,
    describe,
    read_checked,
)
from tlkit.inference.exported import (
    FORMAT,
    IMAGES,
    LOGITS,
    METADATA,
    NOVELTY,
    TENSOR,
    ExportDescription,
)
from tlkit.model.classifier import PredictionNetwork
from tlkit.model.saving import PreprocessDescription, SavedModel, load_model
from tlkit.plugins.loader import load_registry
from tlkit.plugins.registry import Registry
from tlkit.utils.atomic_write import atomic_write
from tlkit.utils.formatting import first_line

if TYPE_CHECKING:
    import onnx

MODULES = ("onnx", "onnxscript", "onnxruntime")
LIBRARIES = ("tlkit", "torch", "timm", "onnx", "onnxscript", "pillow")
#: What onnxruntime, onnxruntime-web and OpenVINO read.
OPSET = 18

Input = Literal["images", "tensor"]


def export_onnx(
    model: Path,
    out: Path,
    images: Sequence[Path],
    registry: Registry | None = None,
    *,
    input_: Input = "images",
) -> ExportCheck:
    """Writes an ONNX file with all that prediction needs, or with the network alone.

    From ``images``, uint8 RGB ``(B, H, W, 3)`` of any size, it computes ``probabilities`` ``(B, classes)``,
    and of each image ``label``, the index of the most probable class, and whether it is ``unclassified`` or
    ``unknown``. From ``tensor``, normalised images ``(B, 3, size, size)``, it computes ``logits``
    ``(B, classes)``. Either gives ``novelty`` ``(B,)`` too, where the model can tell unknown images. The
    metadata have an `ExportDescription`, as JSON under ``tlkit``.

    Args:
        model: a model folder.
        out: the file to write; it must not exist.
        images: files to check the export on: onnxruntime must return the same.
        registry: the parts to choose from; all that is installed unless given.
        input_: "images", or "tensor" for the network alone.

    Returns:
        How it was checked.

    Raises:
        ExportError: a package is missing, the network cannot be converted, or its answers differ.
    """
    check_installed(MODULES, "onnx")
    import onnx

    saved = load_model(model, registry or load_registry())
    checked = read_checked(saved, images)
    check_is_free(out)
    content = convert(saved, checked, input_)
    try:
        with atomic_write(out) as temporary:
            onnx.save(content, temporary)
    except OSError as error:
        raise ExportError(f"{out} cannot be written: {error.strerror or error}") from error
    return ExportCheck(len(checked.decoded))


def convert(saved: SavedModel, checked: CheckedImages, input_: Input) -> onnx.ModelProto:
    """Converts a model, with its description in the metadata; see `export_onnx`.

    Raises:
        ExportError: it cannot be converted, or its answers for the images differ.
    """
    import onnx

    from tlkit.inference.onnx_graph import surround

    content = _convert_network(saved)
    _check_network(saved, checked, content)
    if input_ == "images":
        threshold = saved.unknown.threshold if saved.unknown else None
        content = surround(content, saved.backbone.preprocess, saved.calibration, threshold)
        session = _session(content)
        check_images(saved, checked, lambda pixels: session.run(None, {IMAGES: pixels}))
    onnx.helper.set_model_props(content, {METADATA: _description(saved, input_).model_dump_json()})
    return content


def _convert_network(saved: SavedModel) -> onnx.ModelProto:
    """Converts the network alone, for any number of images."""
    size = saved.backbone.preprocess.size
    network = PredictionNetwork(saved.classifier, saved.unknown, mirror=saved.calibration.mirror)
    try:
        program: Any = torch.onnx.export(
            network.eval(),
            (torch.zeros(2, 3, size, size),),
            dynamo=True,
            verbose=False,
            opset_version=OPSET,
            input_names=[TENSOR],
            output_names=[LOGITS, NOVELTY] if saved.unknown else [LOGITS],
            dynamic_shapes=({0: torch.export.Dim("batch", min=1)},),
        )
        content: onnx.ModelProto = program.model_proto
    except Exception as error:  # torch's exporter raises many types of exceptions
        raise ExportError(f"torch cannot export {describe(saved)} to ONNX: {first_line(error)}") from error
    return content


def _check_network(saved: SavedModel, checked: CheckedImages, content: onnx.ModelProto) -> None:
    session = _session(content)
    tensor = normalize(checked.pixels, saved.backbone.preprocess).contiguous().numpy()
    # alone and together: the batch size must not matter
    for count in (1, len(tensor)):
        outputs = session.run(None, {TENSOR: tensor[:count]})
        check_outputs(compute(saved, checked.pixels[:count]), Outputs(*outputs))


def _session(content: onnx.ModelProto) -> Any:
    import onnxruntime

    return onnxruntime.InferenceSession(content.SerializeToString(), providers=["CPUExecutionProvider"])


def _description(saved: SavedModel, input_: Input) -> ExportDescription:
    return ExportDescription(
        **saved.calibration.model_dump(),
        format=FORMAT,
        input=input_,
        classes=saved.classes,
        preprocess=PreprocessDescription(**asdict(saved.backbone.preprocess)),
        unknown_above=saved.unknown.threshold if saved.unknown else None,
        versions={name: version(name) for name in LIBRARIES},
    )
