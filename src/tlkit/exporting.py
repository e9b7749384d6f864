"""A trained classifier in other tools' forms; nothing is left behind that answers differently."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from tlkit.data.batches import normalise
from tlkit.data.images import read
from tlkit.errors import ExportError
from tlkit.model_folder import SavedModel, load_model
from tlkit.plugins import Registry, load_registry
from tlkit.record import RunRecord, image_files

#: Logits of the export may differ from the classifier's by this much.
TOLERANCE = 1e-3
#: How many images an export is checked on.
CHECKED = 16
ONNX_MODULES = ("onnx", "onnxscript", "onnxruntime")


def export_timm(model: Path, out: Path, images: Sequence[Path], registry: Registry | None = None) -> int:
    """Writes a folder that ``timm.create_model("local-dir:…", pretrained=True)`` loads.

    Args:
        model: a model folder.
        out: the folder to write; it must not be there.
        images: what the export is checked on: timm's network must give the same logits.
        registry: the parts to choose from; all that is installed unless given.

    Returns:
        How many images it was checked on.

    Raises:
        ExportError: timm has no such network, or it answers differently.
    """
    import timm

    saved = load_model(model, registry or load_registry())
    if not saved.config["tlkit"]["classifier_layer"]:
        raise ExportError(
            f"{model} cannot be exported for timm: it takes a network of timm's with pooled features and "
            f"a head 'linear'; this has {_described(saved)}. ONNX takes any: --format onnx"
        )
    pixels = _pixels(saved, images)
    _must_be_free(out)
    unfinished = out.with_name(f"{out.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    try:
        shutil.copytree(model, unfinished)
        network = timm.create_model(f"local-dir:{unfinished}", pretrained=True).eval()
        with torch.inference_mode():
            found = network(normalise(pixels, saved.backbone.preprocess)).numpy()
        _must_agree(saved, pixels, found)
        unfinished.rename(out)
    except OSError as error:
        raise ExportError(f"{out} cannot be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return len(pixels)


def export_onnx(model: Path, out: Path, images: Sequence[Path], registry: Registry | None = None) -> int:
    """Writes an ONNX file: normalised images ``(B, 3, size, size)`` to logits ``(B, classes)``, any B.

    Its metadata has the class names, the preprocessing and the temperature, as JSON under ``tlkit``.

    Args:
        model: a model folder.
        out: the file to write; it must not be there.
        images: what the export is checked on: onnxruntime must give the same logits.
        registry: the parts to choose from; all that is installed unless given.

    Returns:
        How many images it was checked on.

    Raises:
        ExportError: a package is missing, the network cannot be converted, or answers differently.
    """
    if missing := [name for name in ONNX_MODULES if find_spec(name) is None]:
        raise ExportError(f"{', '.join(missing)} missing: pip install 'tlkit[onnx]'")
    import onnx
    import onnxruntime

    saved = load_model(model, registry or load_registry())
    pixels = _pixels(saved, images)
    _must_be_free(out)
    unfinished = out.with_name(f"{out.name}.unfinished")
    try:
        _convert(saved, unfinished)
        content = onnx.load(unfinished)
        about = {
            "classes": list(saved.classes),
            "preprocess": asdict(saved.backbone.preprocess),
            "temperature": saved.temperature,
            "reject_below": saved.reject_below,
        }
        onnx.helper.set_model_props(content, {"tlkit": json.dumps(about)})
        onnx.save(content, unfinished)
        session = onnxruntime.InferenceSession(str(unfinished), providers=["CPUExecutionProvider"])
        inputs = normalise(pixels, saved.backbone.preprocess).contiguous().numpy()
        # one by one and all together: the size of a batch must not matter
        singly = session.run(None, {"images": inputs[:1]})[0]
        together = session.run(None, {"images": inputs})[0]
        _must_agree(saved, pixels, together)
        _must_agree(saved, pixels[:1], singly)
        unfinished.rename(out)
    except OSError as error:
        raise ExportError(f"{out} cannot be written: {error.strerror or error}") from error
    finally:
        unfinished.unlink(missing_ok=True)
    return len(pixels)


def validation_images(model: Path, registry: Registry | None = None) -> list[Path]:
    """The validation images of the run that a model folder belongs to; none where they are not there."""
    run = model.absolute().parent.parent.parent
    if not (run / "recipe.toml").is_file():
        return []
    record = RunRecord(run)
    samples, _, _ = image_files(record.recipe, registry or load_registry())
    paths = [samples[row.id].path for row in record.images if row.split == "val" and row.id in samples]
    return [path for path in paths if path.is_file()]


def _convert(saved: SavedModel, file: Path) -> None:
    size = saved.backbone.preprocess.size
    example = torch.zeros(2, 3, size, size)
    batch = torch.export.Dim("batch", min=1)
    try:
        torch.onnx.export(
            saved.classifier,
            (example,),
            str(file),
            dynamo=True,
            external_data=False,
            verbose=False,
            input_names=["images"],
            output_names=["logits"],
            dynamic_shapes=({0: batch},),
        )
    except Exception as error:  # torch's exporter raises whatever its many parts raise
        line = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ExportError(f"torch cannot export {_described(saved)} to ONNX: {line}") from error


def _pixels(saved: SavedModel, images: Sequence[Path]) -> NDArray[np.uint8]:
    if not images:
        raise ExportError(
            "an export is checked on real images before it is called done: name some with --images"
        )
    chosen = images[:: max(1, len(images) // CHECKED)][:CHECKED]
    return np.stack([saved.backbone.preprocess(read(path)) for path in chosen])


def _must_agree(saved: SavedModel, pixels: NDArray[np.uint8], found: NDArray[Any]) -> None:
    with torch.inference_mode():
        due = saved.classifier(normalise(pixels, saved.backbone.preprocess)).numpy()
    difference = float(np.abs(due - found).max())
    if not difference <= TOLERANCE or (due.argmax(1) != found.argmax(1)).any():
        raise ExportError(
            f"the export was thrown away: its logits differ from the classifier's by up to {difference:.2g}"
        )


def _must_be_free(out: Path) -> None:
    if out.exists():
        raise ExportError(f"{out} is there already: name another --out, or remove it")
    out.parent.mkdir(parents=True, exist_ok=True)


def _described(saved: SavedModel) -> str:
    about = saved.config["tlkit"]
    backbone, head = about["backbone"], about["head"]
    kind = f" with features = {backbone['features']!r}" if "features" in backbone else ""
    return f"{backbone['name']!r}{kind} and head {head['name']!r}"
