"""Exports a trained classifier to the format that is asked for."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from tlkit.data.image_paths import image_paths
from tlkit.errors import ExportError, close_matches
from tlkit.inference.exported import SUFFIX
from tlkit.inference.loading import find_model
from tlkit.plugins.loader import load_registry
from tlkit.plugins.registry import Registry
from tlkit.utils.sequences import Paths, as_list

if TYPE_CHECKING:
    from tlkit.inference.export_checks import ExportCheck

Format = Literal["timm", "onnx", "openvino"]
FORMATS: tuple[Format, ...] = get_args(Format)


def export(
    model: Path | str,
    out: Path | str,
    *,
    format: Format | None = None,
    images: Paths | None = None,
    input: Literal["images", "tensor"] = "images",
    int8: bool = False,
    phase: str | None = None,
    registry: Registry | None = None,
) -> ExportCheck:
    """Exports a classifier for another tool; the export is kept only if its predictions are the same.

    Args:
        model: a model folder, or a run folder.
        out: the folder or file to write; it must not exist.
        format: "timm", a folder that ``timm.create_model("local-dir:…", pretrained=True)`` loads; "onnx", a
            file; or "openvino", a folder. It may be left out where `out` ends in ``.onnx``.
        images: files, folders or patterns to check the export on; the run's validation images unless given.
        input: what an ONNX file takes: "images" of any size, or "tensor", normalised images, for the network
            alone.
        int8: whether an ONNX file computes in 8-bit integers, calibrated on the images.
        phase: the phase of a run; its last unless given.
        registry: the parts to choose from; all that is installed unless given.

    Returns:
        How it was checked, and what the format does not support.

    Raises:
        ExportError: the classifier cannot be exported, or the export's answers differ.
        RunFolderError: there is no model, or no such phase.
    """
    if format is None:
        if Path(out).suffix != SUFFIX:
            raise ExportError(f"{out}: the format is missing, one of {', '.join(FORMATS)}")
        format = "onnx"
    if format not in FORMATS:
        raise ExportError(
            f"there is no format {format!r}{close_matches(format, FORMATS)}: {', '.join(FORMATS)}"
        )
    if format != "onnx" and (int8 or input != "images"):
        raise ExportError(f"{'int8' if int8 else 'input = tensor'} is for ONNX")
    folder = find_model(Path(model), phase)
    paths = None if images is None else [Path(path) for path in image_paths(map(str, as_list(images)), ())]
    # mistakes are found before torch is imported
    from tlkit.inference.export import export_timm
    from tlkit.inference.export_checks import validation_images
    from tlkit.inference.export_onnx import export_onnx
    from tlkit.inference.export_openvino import export_openvino

    registry = registry or load_registry()
    if paths is None:
        paths = validation_images(folder, registry)
    if format == "timm":
        return export_timm(folder, Path(out), paths, registry)
    if format == "openvino":
        return export_openvino(folder, Path(out), paths, registry)
    return export_onnx(folder, Path(out), paths, registry, input_=input, int8=int8)
