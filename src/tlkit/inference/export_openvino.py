"""Exports a trained classifier for OpenVINO; an export whose answers differ is deleted."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from tlkit.data.views import Pixels
from tlkit.errors import ExportError
from tlkit.inference.export_checks import (
    ExportCheck,
    check_images,
    check_installed,
    check_is_free,
    read_checked,
)
from tlkit.inference.export_onnx import MODULES, convert
from tlkit.inference.exported import METADATA
from tlkit.model.saving import load_model
from tlkit.plugins.loader import load_registry
from tlkit.plugins.registry import Registry
from tlkit.utils.atomic_write import atomic_write

#: Without it, OpenVINO computes in bfloat16 where the processor can, and labels change.
COMPILED_WITH = {"INFERENCE_PRECISION_HINT": "f32"}
FILE = "model.xml"


def export_openvino(
    model: Path, out: Path, images: Sequence[Path], registry: Registry | None = None
) -> ExportCheck:
    """Writes a folder with ``model.xml`` and ``model.bin`` for OpenVINO, with all that prediction needs.

    Inputs, outputs and metadata are those of `export_onnx`; the metadata are at ``tlkit`` in the run-time
    information. It has to be compiled with `COMPILED_WITH`.

    Args:
        model: a model folder.
        out: the folder to write; it must not exist.
        images: files to check the export on: OpenVINO must return the same.
        registry: the parts to choose from; all that is installed unless given.

    Returns:
        How it was checked.

    Raises:
        ExportError: a package is missing, the network cannot be converted, or its answers differ.
    """
    check_installed((*MODULES, "openvino"), "openvino")
    import openvino

    saved = load_model(model, registry or load_registry())
    checked = read_checked(saved, images)
    check_is_free(out)
    content = convert(saved, checked, "images").content
    core = openvino.Core()
    network = core.read_model(content.SerializeToString())
    network.set_rt_info(content.metadata_props[0].value, METADATA)
    try:
        with atomic_write(out) as temporary:
            temporary.mkdir()
            # its default, 16-bit weights, changes answers
            openvino.save_model(network, temporary / FILE, compress_to_fp16=False)
            compiled: Any = core.compile_model(temporary / FILE, "CPU", COMPILED_WITH)

            def run(pixels: Pixels) -> list[NDArray[Any]]:
                return list(compiled(pixels).values())

            changed = check_images(saved, checked, run)
    except OSError as error:
        raise ExportError(f"{out} cannot be written: {error.strerror or error}") from error
    return ExportCheck(len(checked.decoded), changed)
