"""Exports a trained classifier to ONNX; an export whose answers differ is deleted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch

from tlkit.data.loader import normalize
from tlkit.errors import ExportError
from tlkit.inference.export_checks import (
    CheckedImages,
    ExportCheck,
    Int8Loss,
    Outputs,
    check_images,
    check_installed,
    check_is_free,
    check_outputs,
    compute,
    describe,
    read_checked,
    run_images,
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
from tlkit.model.description import PreprocessDescription
from tlkit.model.saving import SavedModel, load_model
from tlkit.plugins.loader import load_registry
from tlkit.plugins.registry import Registry
from tlkit.utils.atomic_write import atomic_write
from tlkit.utils.formatting import first_line

if TYPE_CHECKING:
    import onnx

    from tlkit.inference.quantization import Int8Images

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
    int8: bool = False,
) -> ExportCheck:
    """Writes an ONNX file with all that prediction needs, or with the network alone.

    From ``images``, uint8 RGB ``(B, H, W, 3)`` of any size, it computes ``probabilities`` ``(B, classes)``,
    and of each image ``label``, the index of the most probable class, and whether it is ``unclassified`` or
    ``unknown``; or, where images may have several labels, ``labels``, whether an image has each class
    ``(B, classes)``. From ``tensor``, normalised images ``(B, 3, size, size)``, it computes ``logits``
    ``(B, classes)``. Either gives ``novelty`` ``(B,)`` too, where the model can tell unknown images. The
    metadata have an `ExportDescription`, as JSON under ``tlkit``.

    Args:
        model: a model folder.
        out: the file to write; it must not exist.
        images: files to check the export on: onnxruntime must return the same.
        registry: the parts to choose from; all that is installed unless given.
        input_: "images", or "tensor" for the network alone.
        int8: whether the network computes in 8-bit integers; the result says what that costs.

    Returns:
        How it was checked.

    Raises:
        ExportError: a package is missing, the network cannot be converted, or its answers differ.
    """
    check_installed(MODULES, "onnx")
    import onnx

    registry = registry or load_registry()
    saved = load_model(model, registry)
    if int8 and saved.calibration.thresholds is not None:
        raise ExportError("--int8 says what it costs in accuracy, which several labels per image do not have")
    checked = read_checked(saved, images)
    check_is_free(out)
    int8_images = None
    if int8:
        from tlkit.inference.quantization import choose_int8_images

        int8_images = choose_int8_images(run_images(model, registry))
    converted = convert(saved, checked, input_, int8_images)
    try:
        with atomic_write(out) as temporary:
            onnx.save(converted.content, temporary)
    except OSError as error:
        raise ExportError(f"{out} cannot be written: {error.strerror or error}") from error
    return ExportCheck(len(checked.decoded), converted.changed, int8=converted.loss)


@dataclass(frozen=True)
class Converted:
    """A model as ONNX.

    Attributes:
        content: the file's content, with its description in the metadata.
        changed: how many of the checked images get another label.
        loss: what 8-bit integers cost; None: it computes in float32.
    """

    content: onnx.ModelProto
    changed: int = 0
    loss: Int8Loss | None = None


def convert(
    saved: SavedModel, checked: CheckedImages, input_: Input, int8_images: Int8Images | None = None
) -> Converted:
    """Converts a model; see `export_onnx`.

    Args:
        saved: the model.
        checked: images that its answers are checked on.
        input_: what it takes.
        int8_images: to quantise it with; None: it is not quantised.

    Raises:
        ExportError: it cannot be converted, or its answers for the images differ.
    """
    import onnx

    from tlkit.inference.onnx_graph import surround

    preprocess, calibration = saved.backbone.preprocess, saved.calibration
    content = _convert_network(saved)
    _check_network(saved, checked, content)
    unknown_above = saved.unknown.threshold if saved.unknown else None
    whole, changed, loss = content, 0, None
    if input_ == "images":
        whole = surround(content, preprocess, calibration, unknown_above)
        session = _session(whole)
        changed = check_images(saved, checked, lambda pixels: session.run(None, {IMAGES: pixels}))
    if int8_images is not None:
        from tlkit.inference.quantization import quantize

        quantized = quantize(saved, content, int8_images)
        whole, unknown_above, loss = quantized.network, quantized.unknown_above, quantized.loss
        if input_ == "images":
            whole = surround(whole, preprocess, calibration, unknown_above)
    description = ExportDescription(
        **saved.calibration.model_dump(),
        format=FORMAT,
        input=input_,
        classes=saved.classes,
        preprocess=PreprocessDescription(**asdict(preprocess)),
        unknown_above=unknown_above,
        precision="float32" if loss is None else "int8",
        versions={name: version(name) for name in LIBRARIES},
    )
    onnx.helper.set_model_props(whole, {METADATA: description.model_dump_json()})
    return Converted(whole, changed, loss)


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
        computed = Outputs(*session.run(None, {TENSOR: tensor[:count]}))
        check_outputs(saved, compute(saved, checked.pixels[:count]), computed)


def _session(content: onnx.ModelProto) -> Any:
    import onnxruntime

    return onnxruntime.InferenceSession(content.SerializeToString(), providers=["CPUExecutionProvider"])
