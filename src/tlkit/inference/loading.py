"""Loads trained classifiers."""

from __future__ import annotations

from collections.abc import Sequence
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

from tlkit.errors import RunFolderError, close_matches
from tlkit.inference.exported import SUFFIX, OnnxNetwork, read_exported
from tlkit.inference.multilabel import MultilabelPredictor
from tlkit.inference.predictor import Predictor
from tlkit.model.description import Calibration
from tlkit.parts.preprocess import Preprocess
from tlkit.plugins.loader import load_registry

#: What a model on the hub of Hugging Face is named by.
HUB = "hf-hub:"

if TYPE_CHECKING:
    from tlkit.model.classifier import Classifier
    from tlkit.plugins.registry import Registry
    from tlkit.runtime.devices import Precision


#: A model folder, a run folder or an exported file; or the classifier that `load` made of it.
Model = Predictor | Path | str


class LoadOptions(TypedDict, total=False):
    """The options of `load` that say how a model predicts."""

    phase: str | None
    reject_below: float | None
    unknown: bool
    device: str | None
    precision: Precision


def load(
    path: Path | str,
    *,
    phase: str | None = None,
    reject_below: float | None = None,
    unknown: bool = True,
    device: str | None = None,
    precision: Precision = "float32",
    registry: Registry | None = None,
) -> Predictor:
    """Loads a trained classifier.

    Args:
        path: a model folder, a run folder, an ONNX file of `tlkit export`, or a folder of timm's with
            label_names in its config.json.
        phase: the phase of a run; its last unless given.
        reject_below: in place of the threshold that is stored with the model.
        unknown: whether images that belong to none of the classes are labelled "unknown", where the model can
            tell.
        device: such as "cpu" or "cuda:1"; the best one unless given.
        precision: "float32", whose answers are the same everywhere; "bfloat16", or "auto": bfloat16 where the
            hardware computes in it, which can be faster.
        registry: the parts to choose from; all that is installed unless given.

    Returns:
        The classifier, a `MultilabelPredictor` where images may have several labels.

    Raises:
        RunFolderError: there is no model that can be loaded, or no such phase.
    """
    file = find_model(Path(path), phase)
    if file.suffix == SUFFIX:
        if precision == "bfloat16":
            raise RunFolderError(f"{file} computes in the precision that it was exported in, not in bfloat16")
        return _load_exported(file, reject_below, unknown, device)
    # an exported file, and a mistake in the path, need no torch
    from tlkit.model.saving import load_model
    from tlkit.model.timm_folder import is_timm_folder, read_timm_folder

    config = read_timm_folder(file) if is_timm_folder(file) else None
    saved = load_model(file, registry or load_registry(), config)
    return _make_predictor(
        saved.classifier,
        saved.backbone.preprocess,
        saved.classes,
        saved.calibration,
        reject_below,
        unknown=saved.unknown if unknown else None,
        device=device,
        precision=precision,
    )


def as_predictor(model: Model, **options: Unpack[LoadOptions]) -> Predictor:
    """Loads a classifier, unless it is loaded already.

    Raises:
        RunFolderError: there is no model that can be loaded, or one that is loaded is to be loaded otherwise.
    """
    if not isinstance(model, Predictor):
        return load(model, **options)
    defaults = signature(load).parameters
    if changed := [name for name, value in options.items() if value != defaults[name].default]:
        raise RunFolderError(
            f"{', '.join(changed)}: cannot be changed once a model is loaded: give it to tlkit.load"
        )
    return model


def _make_predictor(
    network: Classifier | OnnxNetwork,
    preprocess: Preprocess,
    classes: Sequence[str],
    calibration: Calibration,
    reject_below: float | None,
    **options: Any,
) -> Predictor:
    options |= {
        "temperature": calibration.temperature,
        "reject_below": calibration.reject_below if reject_below is None else reject_below,
        "mirror": calibration.mirror,
    }
    if calibration.thresholds is not None:
        return MultilabelPredictor(network, preprocess, classes, calibration.thresholds, **options)
    return Predictor(network, preprocess, classes, **options)


def _load_exported(file: Path, reject_below: float | None, unknown: bool, device: str | None) -> Predictor:
    if device not in (None, "cpu"):
        raise RunFolderError(f"{file} is computed by onnxruntime on the CPU, not on {device}: name no device")
    exported = read_exported(file, unknown=unknown)
    description = exported.description
    preprocess = description.preprocess.to_preprocess()
    return _make_predictor(exported.network, preprocess, description.classes, description, reject_below)


def find_model(path: Path, phase: str | None = None) -> Path:
    """Finds the model that a path stands for: itself, or the model folder of a run's last or named phase.

    Raises:
        RunFolderError: there is none.
    """
    if str(path).startswith(HUB):
        name = str(path).removeprefix(HUB)
        raise RunFolderError(
            f"{path} is on the hub: download it, hf download {name} --local-dir {path.name}, and name that "
            "folder"
        )
    if path.suffix == SUFFIX and path.is_file():
        if phase is not None:
            raise RunFolderError(f"{path} is an exported file and has no phases: leave --phase {phase} out")
        return path
    if (path / "config.json").is_file() or (path / "model.safetensors").is_file():
        if phase is not None:
            raise RunFolderError(f"{path} is a model folder and has no phases: leave --phase {phase} out")
        return path
    if not (path / "recipe.toml").is_file():
        if path.is_dir():
            raise RunFolderError(f"{path} is neither a model folder nor a run folder")
        siblings = [sibling.name for sibling in path.parent.iterdir()] if path.parent.is_dir() else []
        raise RunFolderError(f"{path} does not exist{close_matches(path.name, siblings)}")
    from tlkit.experiment.run_folder import RunFolder

    folder = RunFolder(path)
    results = folder.results()
    done = [result.name for result in results.phases] if results else []
    if not done:
        raise RunFolderError(f"{path}: this run has finished no phase yet")
    if phase is not None and phase not in done:
        hint = close_matches(phase, done) or f"; there are {', '.join(done)}"
        raise RunFolderError(f"{path} has no finished phase {phase!r}{hint}")
    return folder.model(phase or done[-1])
