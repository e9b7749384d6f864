"""Exports a trained classifier; an export whose answers differ is deleted."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tlkit.data.images import UnreadableImage
from tlkit.data.loader import normalize
from tlkit.data.views import Pixels
from tlkit.errors import ExportError
from tlkit.experiment.record import RunRecord, find_image_files
from tlkit.inference.pixels import read_pixels
from tlkit.model.classifier import PredictionNetwork
from tlkit.model.saving import SavedModel, load_model, save_again
from tlkit.model.timm_names import timm_layer
from tlkit.parts.head import HasLinearForm
from tlkit.plugins.loader import load_registry
from tlkit.plugins.registry import Registry
from tlkit.utils.atomic_write import atomic_write

#: Maximum difference between the export's logits and the classifier's.
TOLERANCE = 1e-3
#: How many images an export is checked on.
CHECKED = 16
ONNX_MODULES = ("onnx", "onnxscript", "onnxruntime")


@dataclass(frozen=True)
class ExportCheck:
    """How an export was checked.

    Attributes:
        images: number of images.
        changed: number of images that `tlkit.load` gives another label, since the format has no place for all
            that the classifier does.
        left_out: what the format has no place for.
    """

    images: int
    changed: int = 0
    left_out: tuple[str, ...] = ()


def export_timm(
    model: Path, out: Path, images: Sequence[Path], registry: Registry | None = None
) -> ExportCheck:
    """Writes a folder that ``timm.create_model("local-dir:…", pretrained=True)`` loads.

    A probe with a kernel is exported in its linear form, and the mean over an image and its mirror image and
    the detector of unknown images are left out; the result says what that costs.

    Args:
        model: a model folder.
        out: the folder to write; it must not exist.
        images: files to check the export on: timm's network must return the same logits.
        registry: the parts to choose from; all that is installed unless given.

    Returns:
        How it was checked.

    Raises:
        ExportError: timm has no such network, or its answers differ.
    """
    import timm

    saved = load_model(model, registry or load_registry())
    pixels, head = _read_pixels(saved, images), saved.classifier.head
    logits, unknown = _predict(saved, pixels)
    expected, left_out = np.where(unknown, -1, logits.argmax(1)), []
    if saved.unknown is not None:
        saved = replace(saved, unknown=None)
        left_out.append("the label 'unknown'")
    if saved.calibration.mirror:
        saved = _with_calibration(saved, mirror=False)
        left_out.append("the mean over an image and its mirror image")
    if isinstance(head, HasLinearForm) and head.use_linear_form():
        left_out.append("the head's kernel")
    layer = timm_layer(saved.classifier, saved.backbone)
    if layer is None:
        raise ExportError(
            f"{model} cannot be exported for timm: that takes a network of timm's with pooled features and "
            f"a linear head or a probe; this has {_describe(saved)}. ONNX takes any: --format onnx"
        )
    _check_is_free(out)
    try:
        with atomic_write(out) as temporary:
            save_again(temporary, saved)
            network = timm.create_model(f"local-dir:{temporary}", pretrained=True).eval()
            with torch.inference_mode():
                logits = network(normalize(pixels, saved.backbone.preprocess)).numpy()
            _check(saved, pixels, [logits])
    except OSError as error:
        raise ExportError(f"{out} cannot be written: {error.strerror or error}") from error
    changed = int((logits.argmax(1) != expected).sum())
    return ExportCheck(len(pixels), changed, tuple(left_out))


def export_onnx(
    model: Path, out: Path, images: Sequence[Path], registry: Registry | None = None
) -> ExportCheck:
    """Writes an ONNX file: normalised images ``(B, 3, size, size)`` to logits ``(B, classes)``, for any B.

    A second output, ``unknown`` ``(B,)``, says which images belong to none of the classes, where the model
    can tell. The metadata has the class names, the preprocessing and the calibration, as JSON under
    ``tlkit``.

    Args:
        model: a model folder.
        out: the file to write; it must not exist.
        images: files to check the export on: onnxruntime must return the same logits.
        registry: the parts to choose from; all that is installed unless given.

    Returns:
        How it was checked.

    Raises:
        ExportError: a package is missing, the network cannot be converted, or its answers differ.
    """
    if missing := [name for name in ONNX_MODULES if find_spec(name) is None]:
        raise ExportError(f"{', '.join(missing)} missing: pip install 'tlkit[onnx]'")
    import onnx
    import onnxruntime

    saved = load_model(model, registry or load_registry())
    pixels = _read_pixels(saved, images)
    _check_is_free(out)
    try:
        with atomic_write(out) as temporary:
            _convert(saved, temporary)
            content = onnx.load(temporary)
            metadata = {
                "classes": list(saved.classes),
                "preprocess": asdict(saved.backbone.preprocess),
                **saved.calibration.model_dump(),
            }
            onnx.helper.set_model_props(content, {"tlkit": json.dumps(metadata)})
            onnx.save(content, temporary)
            session = onnxruntime.InferenceSession(str(temporary), providers=["CPUExecutionProvider"])
            inputs = normalize(pixels, saved.backbone.preprocess).contiguous().numpy()
            # alone and together: the batch size must not matter
            _check(saved, pixels[:1], session.run(None, {"images": inputs[:1]}))
            _check(saved, pixels, session.run(None, {"images": inputs}))
    except OSError as error:
        raise ExportError(f"{out} cannot be written: {error.strerror or error}") from error
    return ExportCheck(len(pixels))


def validation_images(model: Path, registry: Registry | None = None) -> list[Path]:
    """Returns the validation images, or without any the training images, of the run that a model belongs to.

    Those that no longer exist are left out.
    """
    run = model.absolute().parent.parent.parent
    if not (run / "recipe.toml").is_file():
        return []
    record = RunRecord(run)
    samples, _, _ = find_image_files(record.recipe, registry or load_registry())
    split = "val" if any(row.split == "val" for row in record.images) else "train"
    paths = [samples[row.id].path for row in record.images if row.split == split and row.id in samples]
    return [path for path in paths if path.is_file()]


class _Labelling(nn.Module):
    """Images to logits ``(B, classes)`` and, with a detector, which are unknown ``(B,)``."""

    def __init__(self, saved: SavedModel) -> None:
        super().__init__()
        self.network = PredictionNetwork(saved.classifier, saved.unknown, mirror=saved.calibration.mirror)
        self.threshold = saved.unknown.threshold if saved.unknown else None

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        logits, *novelty = self.network(images)
        return (logits, *(value > self.threshold for value in novelty))


def _convert(saved: SavedModel, file: Path) -> None:
    size = saved.backbone.preprocess.size
    try:
        torch.onnx.export(
            _Labelling(saved).eval(),
            (torch.zeros(2, 3, size, size),),
            str(file),
            dynamo=True,
            external_data=False,
            verbose=False,
            input_names=["images"],
            output_names=["logits", "unknown"] if saved.unknown else ["logits"],
            dynamic_shapes=({0: torch.export.Dim("batch", min=1)},),
        )
    except Exception as error:  # torch's exporter raises many types of exceptions
        line = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ExportError(f"torch cannot export {_describe(saved)} to ONNX: {line}") from error


def _read_pixels(saved: SavedModel, images: Sequence[Path]) -> Pixels:
    if not images:
        raise ExportError("an export is checked on real images: name some with --images")
    chosen, pixels = images[:: max(1, len(images) // CHECKED)][:CHECKED], list[Pixels]()
    try:
        for path in chosen:
            pixels.append(read_pixels(path, saved.backbone.preprocess))
    except UnreadableImage as error:
        raise ExportError(f"{path}, to check the export on, cannot be read: {error}") from error
    return np.stack(pixels)


def _check(saved: SavedModel, pixels: Pixels, outputs: Sequence[NDArray[Any]]) -> None:
    """Raises ExportError if an export's logits, or the images that it calls unknown, are others."""
    expected, unknown = _predict(saved, pixels)
    difference = float(np.abs(expected - outputs[0]).max())
    if not difference <= TOLERANCE or (expected.argmax(1) != outputs[0].argmax(1)).any():
        raise ExportError(
            f"the export was deleted: its logits differ from the classifier's by up to {difference:.2g}"
        )
    if len(outputs) > 1 and (outputs[1] != unknown).any():
        raise ExportError("the export was deleted: it calls other images unknown than the classifier")


def _predict(saved: SavedModel, pixels: Pixels) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Returns the logits that `tlkit.load` predicts with, ``(N, classes)``, and which images are unknown."""
    with torch.inference_mode():
        logits, *unknown = _Labelling(saved).eval()(normalize(pixels, saved.backbone.preprocess))
    return logits.numpy(), unknown[0].numpy() if unknown else np.zeros(len(logits), np.bool_)


def _with_calibration(saved: SavedModel, **changes: bool) -> SavedModel:
    """Returns the same model with another calibration."""
    calibration = saved.calibration.model_copy(update=changes)
    description = saved.config.tlkit.model_copy(update={"calibration": calibration})
    return replace(saved, config=saved.config.model_copy(update={"tlkit": description}))


def _check_is_free(out: Path) -> None:
    if out.exists():
        raise ExportError(f"{out} exists already: name another --out, or remove it")


def _describe(saved: SavedModel) -> str:
    backbone, head = saved.config.tlkit.backbone, saved.config.tlkit.head
    features = backbone.options.get("features")
    kind = f" with features = {features!r}" if features else ""
    return f"{backbone.name!r}{kind} and head {head.name!r}"
