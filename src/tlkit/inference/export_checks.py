"""What all exports share: the images that they are checked on, and the comparison with the classifier."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image as PillowImage

from tlkit.data.images import UnreadableImage, read_image, refuse_unreadable
from tlkit.data.loader import normalize
from tlkit.data.views import Pixels
from tlkit.errors import ExportError
from tlkit.evaluation.calibration import probabilities
from tlkit.evaluation.multilabel import label_probabilities
from tlkit.experiment.record import RunRecord, find_image_files
from tlkit.model.classifier import PredictionNetwork
from tlkit.model.saving import SavedModel
from tlkit.plugins.loader import load_registry
from tlkit.plugins.registry import Registry

#: Maximum difference between an exported network's logits and novelty and the classifier's.
TOLERANCE = 1e-3
#: Maximum difference of probabilities and novelty where images are resized in the export.
RESIZED_TOLERANCE = 1e-2
#: How many images an export is checked on.
CHECKED = 16


@dataclass(frozen=True)
class Int8Loss:
    """What 8-bit integers cost, by McNemar's test on images that the classifier was not trained on.

    Attributes:
        calibrated: number of images that the network was calibrated on.
        calibrated_on_val: whether these are validation images; False: the run has none, and they are training
            images.
        images: number of images that the loss was measured on.
        before: how many of them the classifier predicts correctly.
        after: how many the export does.
        gained: how many only the export does.
        lost: how many only the classifier does.
        p: probability of such a difference or a larger one if both were equally good.
    """

    calibrated: int
    calibrated_on_val: bool
    images: int
    before: int
    after: int
    gained: int
    lost: int
    p: float


@dataclass(frozen=True)
class ExportCheck:
    """How an export was checked.

    Attributes:
        images: number of images.
        changed: number of images that `tlkit.load` gives another label: the format does not support
            everything that the classifier does, or they are close to a threshold.
        left_out: what the format does not support.
        int8: what 8-bit integers cost; None: it computes in float32.
    """

    images: int
    changed: int = 0
    left_out: tuple[str, ...] = ()
    int8: Int8Loss | None = None


@dataclass(frozen=True)
class CheckedImages:
    """Images that an export is checked on.

    Attributes:
        decoded: as they are read.
        pixels: the same after preprocessing, ``(N, size, size, 3)``.
    """

    decoded: list[PillowImage.Image]
    pixels: Pixels


@dataclass(frozen=True)
class Outputs:
    """What a network computes of images.

    Attributes:
        logits: ``(N, classes)``.
        novelty: ``(N,)``; None: it is not computed.
    """

    logits: NDArray[np.float32]
    novelty: NDArray[np.float32] | None = None


def read_checked(saved: SavedModel, paths: Sequence[Path]) -> CheckedImages:
    """Reads up to `CHECKED` of the images.

    Raises:
        ExportError: there are none, or one cannot be read.
    """
    if not paths:
        raise ExportError("an export is checked on real images: name some with --images")
    decoded: list[PillowImage.Image] = []
    pixels: list[Pixels] = []
    for path in paths[:: max(1, len(paths) // CHECKED)][:CHECKED]:
        try:
            with refuse_unreadable():
                decoded.append(read_image(path))
                pixels.append(saved.backbone.preprocess(decoded[-1]))
        except UnreadableImage as error:
            raise ExportError(f"{path}, to check the export on, cannot be read: {error}") from error
    return CheckedImages(decoded, np.stack(pixels))


def compute(saved: SavedModel, pixels: Pixels) -> Outputs:
    """Computes what `tlkit.load` predicts with."""
    network = PredictionNetwork(saved.classifier, saved.unknown, mirror=saved.calibration.mirror).eval()
    with torch.inference_mode():
        logits, *novelty = network(normalize(pixels, saved.backbone.preprocess))
    return Outputs(logits.numpy(), novelty[0].numpy() if novelty else None)


def answers(saved: SavedModel, logits: NDArray[np.float32]) -> NDArray[Any]:
    """Returns the classifier's answers: each image's class, ``(N, 1)``, or whether it has each class."""
    if saved.calibration.thresholds is None:
        most_probable: NDArray[np.int64] = logits.argmax(1)
        return most_probable[:, None]
    above: NDArray[np.bool_] = label_probabilities(logits.astype(np.float64)) >= saved.calibration.thresholds
    return above


def check_outputs(saved: SavedModel, expected: Outputs, computed: Outputs) -> None:
    """Compares an exported network with the classifier.

    Raises:
        ExportError: logits differ by more than `TOLERANCE`, or most probable classes, where images have one.
    """
    _check("logits", expected.logits, computed.logits, TOLERANCE)
    has_one_label = saved.calibration.thresholds is None
    if has_one_label and (expected.logits.argmax(1) != computed.logits.argmax(1)).any():
        raise ExportError("the export was deleted: it gives other labels than the classifier")
    if expected.novelty is not None and computed.novelty is not None:
        _check("novelty", expected.novelty, computed.novelty, TOLERANCE)


def check_images(
    saved: SavedModel, checked: CheckedImages, run: Callable[[Pixels], Sequence[NDArray[Any]]]
) -> int:
    """Compares an export that resizes images itself with the classifier.

    Args:
        saved: the classifier.
        checked: images, which are computed one by one, since their sizes differ.
        run: maps images ``(1, H, W, 3)`` to the outputs that `ANSWERS` names, and novelty if it is computed,
            or to those that `MULTILABEL_ANSWERS` names.

    Returns:
        How many images get another label: they are close to a threshold.

    Raises:
        ExportError: probabilities or novelty differ by more than `RESIZED_TOLERANCE`.
    """
    rows = [run(np.asarray(image)[None]) for image in checked.decoded]
    if saved.calibration.thresholds is not None:
        return _check_labels(saved, checked, *map(np.concatenate, zip(*rows, strict=True)))
    probable, label, unclassified, unknown, *novelty = map(np.concatenate, zip(*rows, strict=True))
    expected, reject_below = compute(saved, checked.pixels), saved.calibration.reject_below or 0.0
    truth = probabilities(expected.logits.astype(np.float64), saved.calibration.temperature)
    _check("probabilities", truth, probable, RESIZED_TOLERANCE)
    same = np.where(truth.max(1) < reject_below, unclassified, ~unclassified & (label == truth.argmax(1)))
    if saved.unknown is not None and expected.novelty is not None:
        _check("novelty", expected.novelty, novelty[0], RESIZED_TOLERANCE)
        same = np.where(expected.novelty > saved.unknown.threshold, unknown, ~unknown & same)
    return int((~same).sum())


def _check_labels(
    saved: SavedModel, checked: CheckedImages, probable: NDArray[Any], labels: NDArray[Any]
) -> int:
    """Compares an export of a classifier of several labels; see `check_images`."""
    logits = compute(saved, checked.pixels).logits
    _check("probabilities", label_probabilities(logits.astype(np.float64)), probable, RESIZED_TOLERANCE)
    return int((answers(saved, logits) != labels).any(1).sum())


def _check(name: str, expected: NDArray[Any], computed: NDArray[Any], tolerance: float) -> None:
    difference = float(np.abs(expected - computed).max())
    if not difference <= tolerance:
        raise ExportError(
            f"the export was deleted: its {name} differ from the classifier's by up to {difference:.2g}"
        )


@dataclass(frozen=True)
class LabelledImage:
    """An image of a run."""

    path: Path
    label: str | None
    split: str


def run_images(model: Path, registry: Registry | None = None) -> list[LabelledImage]:
    """Returns the images of the run that a model belongs to; those that no longer exist are left out."""
    run = model.absolute().parent.parent.parent
    if not (run / "recipe.toml").is_file():
        return []
    record = RunRecord(run)
    samples, _, _ = find_image_files(record.recipe, registry or load_registry())
    return [
        LabelledImage(samples[row.id].path, row.label, row.split)
        for row in record.images
        if row.id in samples and samples[row.id].path.is_file()
    ]


def validation_images(model: Path, registry: Registry | None = None) -> list[Path]:
    """Returns the validation images, or without any the training images, of a model's run."""
    images = run_images(model, registry)
    split = "val" if any(image.split == "val" for image in images) else "train"
    return [image.path for image in images if image.split == split]


def check_installed(modules: Sequence[str], extra: str) -> None:
    """Raises ExportError if a module is missing that one of tlkit's extras installs."""
    if missing := [name for name in modules if find_spec(name) is None]:
        raise ExportError(f"{', '.join(missing)} missing: pip install 'tlkit[{extra}]'")


def check_is_free(out: Path) -> None:
    """Raises ExportError if there is something at `out`."""
    if out.exists():
        raise ExportError(f"{out} exists already: name another --out, or remove it")


def describe(saved: SavedModel) -> str:
    """Names a model's backbone and head."""
    backbone, head = saved.config.tlkit.backbone, saved.config.tlkit.head
    features = backbone.options.get("features")
    kind = f" with features = {features!r}" if features else ""
    return f"{backbone.name!r}{kind} and head {head.name!r}"
