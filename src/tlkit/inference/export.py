"""Exports a trained classifier for timm; an export whose answers differ is deleted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from tlkit.data.loader import normalize
from tlkit.errors import ExportError
from tlkit.inference.export_checks import (
    ExportCheck,
    Outputs,
    answers,
    check_is_free,
    check_outputs,
    compute,
    describe,
    read_checked,
)
from tlkit.model.saving import SavedModel, load_model, save_again
from tlkit.model.timm_names import timm_layer
from tlkit.parts.head import HasLinearForm
from tlkit.plugins.loader import load_registry
from tlkit.plugins.registry import Registry
from tlkit.utils.atomic_write import atomic_write


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
    pixels, head = read_checked(saved, images).pixels, saved.classifier.head
    outputs, left_out = compute(saved, pixels), []
    labels = answers(saved, outputs.logits)
    if saved.calibration.thresholds is not None:
        left_out.append("the classes' thresholds")
    if saved.unknown is not None and outputs.novelty is not None:
        labels[outputs.novelty > saved.unknown.threshold] = -1
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
            f"a linear head or a probe; this has {describe(saved)}. ONNX takes any: --format onnx"
        )
    check_is_free(out)
    try:
        with atomic_write(out) as temporary:
            save_again(temporary, saved)
            network = timm.create_model(f"local-dir:{temporary}", pretrained=True).eval()
            with torch.inference_mode():
                logits = network(normalize(pixels, saved.backbone.preprocess)).numpy()
            check_outputs(saved, compute(saved, pixels), Outputs(logits))
    except OSError as error:
        raise ExportError(f"{out} cannot be written: {error.strerror or error}") from error
    changed = int((answers(saved, logits) != labels).any(1).sum())
    return ExportCheck(len(pixels), changed, tuple(left_out))


def _with_calibration(saved: SavedModel, **changes: bool) -> SavedModel:
    """Returns the same model with another calibration."""
    calibration = saved.calibration.model_copy(update=changes)
    description = saved.config.tlkit.model_copy(update={"calibration": calibration})
    return replace(saved, config=saved.config.model_copy(update={"tlkit": description}))
