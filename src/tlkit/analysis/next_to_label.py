"""Selects the unlabelled images to label next."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from tlkit.analysis.selection import Selected, cluster_positions, select_typical, select_uncertain
from tlkit.data.image_paths import image_paths
from tlkit.data.inspection import inspect_images
from tlkit.errors import DataError, RunFolderError, close_matches
from tlkit.experiment.backbones import choose_backbone
from tlkit.experiment.observer import Observer
from tlkit.experiment.record import RunRecord
from tlkit.inference.loading import load
from tlkit.inference.multilabel import MultilabelPredictor
from tlkit.inference.prediction import Represented
from tlkit.inference.predictor import Predictor
from tlkit.model.classifier import Classifier
from tlkit.model.unknown import UnknownDetector
from tlkit.parts.source import Sample
from tlkit.plugins.loader import load_registry
from tlkit.plugins.registry import Registry
from tlkit.runtime.processors import reader_threads

#: How many classes are given with their probabilities.
TOP = 2
#: The only class while nothing is labelled.
UNLABELLED = "unlabelled"


@dataclass(frozen=True)
class ImageToLabel:
    """An image that is worth a label.

    Attributes:
        image: its path.
        score: how much its label is worth, higher being more: of the images that are like it, how many the
            classifier cannot tell between two classes; without a classifier, how many there are.
        similar: how many images are like it, itself included.
        top: the two most probable classes with their probabilities; empty without a classifier.
    """

    image: str
    score: float
    similar: int
    top: tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class NextToLabel:
    """Which images to label next.

    Attributes:
        images: the selected ones, the most valuable first.
        candidates: number of images that they were selected from; equal files count once.
        labelled: number of images that were left out, since the run has their labels.
        compared: number of training images that they were compared with: those whose features the model
            folder holds, to tell unknown images; 0 if it holds none.
        unreadable: (path, reason) of each image that cannot be read.
    """

    images: tuple[ImageToLabel, ...]
    candidates: int
    labelled: int
    compared: int
    unreadable: tuple[tuple[str, str], ...]


def next_to_label(
    model: Path | str | None,
    folder: Path | str,
    count: int = 20,
    *,
    backbone: str | None = None,
    phase: str | None = None,
    seed: int = 0,
    device: str | None = None,
    observer: Observer | None = None,
    registry: Registry | None = None,
) -> NextToLabel:
    """Selects the unlabelled images whose labels would help most.

    With a classifier they are those that it is uncertain about and that differ from one another, and from the
    training images whose features the model folder holds (`select_uncertain`); without one, those that are
    typical of as many groups of similar images (`select_typical`).

    Args:
        model: a run or a model folder; None: nothing is labelled yet. Images that a run has labels of are
            left out.
        folder: a folder of images, with all folders below it.
        count: how many images to select.
        backbone: whose features are compared where there is no model; see `choose_backbone` unless given.
        phase: the phase of a run; its last unless given.
        seed: of the clusters' first centres.
        device: such as "cpu" or "cuda:1"; the best one unless given.
        observer: is shown the progress.
        registry: the parts to choose from; all that is installed unless given.

    Raises:
        TlkitError: the model, the backbone or the images must be corrected first.
    """
    if count < 1:
        raise DataError(f"count must be at least 1, and is {count}")
    if model is not None and backbone is not None:
        raise DataError("a model has its own backbone: leave the backbone out, or the model")
    registry, observer = registry or load_registry(), observer or Observer()
    if model is None:
        predictor = _untrained(backbone, device, registry, observer)
    else:
        predictor = _load(model, phase, device, registry)
    unlabelled, labelled, rejected = _read_unlabelled(Path(folder), _labelled_files(model), observer)
    with observer.progress("comparing images", len(unlabelled), "images") as tick:
        represented = predictor.represent(unlabelled, tick=tick)
    labelled_features = _training_features(predictor)
    positions = cluster_positions(represented.features, labelled_features)
    if model is None:
        selected = select_typical(positions, count, seed=seed)
    else:
        selected = select_uncertain(positions, represented.probabilities, count, seed=seed)
    classes = () if model is None else predictor.classes
    return NextToLabel(
        tuple(_image_to_label(image, represented, classes) for image in selected),
        len(represented.images),
        labelled,
        0 if labelled_features is None else len(labelled_features),
        (*rejected, *represented.unreadable),
    )


def _load(model: Path | str, phase: str | None, device: str | None, registry: Registry) -> Predictor:
    predictor = load(model, phase=phase, device=device, registry=registry)
    if isinstance(predictor, MultilabelPredictor):
        raise RunFolderError(
            f"{model} predicts several labels per image; tlkit next needs a model that predicts one"
        )
    return predictor


def _untrained(backbone: str | None, device: str | None, registry: Registry, observer: Observer) -> Predictor:
    """Returns a predictor for a backbone's features; its probabilities say nothing."""
    name = choose_backbone(backbone, None, registry=registry, observer=observer)
    with torch.random.fork_rng(devices=[]):
        network = registry.make("backbone", name, {})
        head = registry.make("head", "linear", {}, network, (UNLABELLED,))
    return Predictor(Classifier(network, head), network.preprocess, (UNLABELLED,), mirror=True, device=device)


def _training_features(predictor: Predictor) -> NDArray[np.float32] | None:
    """Returns the features of training images that the model holds; None: it tells no unknown images."""
    detector = predictor.unknown
    return detector.features.cpu().numpy() if isinstance(detector, UnknownDetector) else None


def _labelled_files(model: Path | str | None) -> set[str]:
    """Returns the hashes of the files that a run has labels of; a model folder lists none."""
    if model is None or not (Path(model) / "recipe.toml").is_file():
        return set()
    return {image.sha256 for image in RunRecord(Path(model)).images if image.label is not None}


def _read_unlabelled(
    folder: Path, labelled_files: Collection[str], observer: Observer
) -> tuple[list[Path], int, list[tuple[str, str]]]:
    """Returns the unlabelled images, equal ones once, the number of labelled ones, and the unreadable ones.

    Raises:
        DataError: there is nothing to label.
    """
    if not folder.is_dir():
        siblings = [sibling.name for sibling in folder.parent.iterdir()] if folder.parent.is_dir() else []
        raise DataError(f"{folder} is not a folder{close_matches(folder.name, siblings)}")
    samples = [Sample(path, Path(path)) for path in image_paths([str(folder)], ())]
    with observer.progress("reading images", len(samples), "images") as tick:
        images, rejected = inspect_images(samples, threads=reader_threads(), tick=tick)
    paths: dict[str, Path] = {}
    labelled = 0
    for image in images:
        if image.sha256 in labelled_files:
            labelled += 1
        else:
            paths.setdefault(image.sha256, image.sample.path)
    if not paths:
        raise DataError(
            f"{folder} holds no image to label: {labelled:,} have labels already, "
            f"{len(rejected):,} cannot be read"
        )
    return list(paths.values()), labelled, rejected


def _image_to_label(selected: Selected, represented: Represented, classes: Sequence[str]) -> ImageToLabel:
    row = represented.probabilities[selected.index]
    best = np.argsort(-row, kind="stable")[: TOP if classes else 0]
    return ImageToLabel(
        represented.images[selected.index],
        selected.score,
        selected.similar,
        tuple((classes[column], float(row[column])) for column in best),
    )
