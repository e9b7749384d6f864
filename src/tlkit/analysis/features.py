"""Computes the pooled features of all labelled images that a question is about."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from tlkit.analysis.encoder import Encoder, pooled_mean
from tlkit.analysis.images import TrainingImages
from tlkit.analysis.probe import ProbeFactory
from tlkit.analysis.targets import recipe_for
from tlkit.data.corrections import apply_corrections
from tlkit.data.corrections_file import read_corrections
from tlkit.data.dataset import divide_images, read_assignment
from tlkit.data.folds import group_names
from tlkit.data.images import Image
from tlkit.data.inspection import inspect_images
from tlkit.errors import DataError, RecipeError
from tlkit.experiment.backbones import choose_backbone
from tlkit.experiment.observer import Observer
from tlkit.experiment.sources import generate_images, make_source
from tlkit.parts.backbone import WeightsOrigin
from tlkit.parts.source import SPLITS, SplitName
from tlkit.plugins.loader import load_registry
from tlkit.plugins.registry import Registry
from tlkit.recipe.recipe import Recipe
from tlkit.recipe.schema import DataSpec, PartSpec
from tlkit.recipe.task import require_one_label
from tlkit.runtime.processors import reader_threads
from tlkit.utils.directories import generated_folder


@dataclass(frozen=True)
class LabelledImages:
    """All labelled images of a source, read once.

    Attributes:
        recipe: the recipe that names the source; one without phases where there is no more than a folder.
        data: where they come from.
        classes: class names; a label is an index into them.
        images: the images that can be read.
        splits: the split of each; None: nothing has divided them, or the recipe does not use it.
        rejected: (id, reason) of each image that cannot be read.
    """

    recipe: Recipe
    data: DataSpec
    classes: tuple[str, ...]
    images: tuple[Image, ...]
    splits: tuple[SplitName | None, ...]
    rejected: tuple[tuple[str, str], ...]

    @property
    def name(self) -> str:
        """What the images are called: the recipe's name, or the folder's if it is not one of tlkit's own."""
        root = self.data.root
        if self.recipe.phases or root is None or root.is_relative_to(generated_folder()):
            return self.recipe.name
        return root.name

    @property
    def origin(self) -> str:
        """Where their source reads them: its file or folder."""
        return str(self.data.source.options.get("file") or self.data.root or self.data.source.name)

    @cached_property
    def groups(self) -> NDArray[np.int64]:
        """The number of each image's group, ``(N,)``, from 0: those that a cross-validation keeps together.

        They are those of ``data.group`` or of the source, joined where images have equal bytes. If there are
        none, each image stands alone: scikit-learn's folds of groups take long.
        """
        if self.data.group is None and not any(image.sample.group for image in self.images):
            return np.arange(len(self.images))
        return np.unique(group_names(self.images, self.data.group), return_inverse=True)[1]


@dataclass(frozen=True)
class DatasetFeatures:
    """Labelled images with their pooled features.

    Attributes:
        labelled: the images.
        labels: their labels, int64 ``(N,)``.
        mean: pooled features, the mean over each image and its mirror image, float32 ``(N, C)``: what probes
            are fitted to, and the same for an image and its mirror image.
        backbone: the backbone's name.
        weights: where its weights come from; None: they are random, or it is unknown.
        probes: fits probes to such features.
    """

    labelled: LabelledImages
    labels: NDArray[np.int64]
    mean: NDArray[np.float32]
    backbone: str
    weights: WeightsOrigin | None
    probes: ProbeFactory

    def __len__(self) -> int:
        """Returns the number of images."""
        return len(self.labels)


def read_labelled(recipe: Recipe, registry: Registry, observer: Observer) -> LabelledImages:
    """Reads every labelled image of a recipe's source once, with the recipe's corrections.

    Images that cannot be read are left out and listed, whatever the recipe says: nothing is trained here.
    """
    if recipe.data is None:
        raise RecipeError(["data: is missing"], recipe=recipe.label)
    require_one_label(recipe, "an audit, a learning curve or a choice of backbones")
    source = make_source(recipe.data, registry)
    generate_images(source, observer)
    samples = [sample for sample in source.samples if sample.label is not None]
    if not samples:
        raise DataError(f"{recipe.data.root or recipe.data.source.name} holds no labelled images")
    corrections = read_corrections(recipe.data.corrections) if recipe.data.corrections else None
    assignment = read_assignment(source, recipe.data)
    with observer.progress("reading images", len(samples), "images") as tick:
        readable, unreadable = inspect_images(samples, threads=reader_threads(), tick=tick)
    corrected = apply_corrections(corrections, readable, unreadable, source.classes)
    images, rejected = corrected.images, (*corrected.rejected, *corrected.left_out)
    if not images:
        raise DataError(f"no image of {recipe.data.root or recipe.data.source.name} can be read")
    splits = _splits(recipe, recipe.data, images, source.classes, assignment)
    return LabelledImages(recipe, recipe.data, source.classes, images, splits, rejected)


def _splits(
    recipe: Recipe,
    data: DataSpec,
    images: Sequence[Image],
    classes: Sequence[str],
    assignment: Mapping[str, SplitName] | None,
) -> tuple[SplitName | None, ...]:
    """Returns the split of each image: the source's own or, in a recipe that trains, as its run draws it."""
    if not recipe.phases:
        return tuple(image.sample.split for image in images)
    drawn = divide_images(images, classes, data, recipe.seed, assignment)
    by_id: dict[str, SplitName] = {
        image.sample.id: split for split in SPLITS for image in getattr(drawn, split)
    }
    return tuple(by_id.get(image.sample.id) for image in images)


def target_features(
    target: TrainingImages,
    labels: str | Iterable[object] | None = None,
    *,
    backbone: str | None = None,
    weights: str | None = None,
    device: str | None = None,
    observer: Observer,
    registry: Registry | None = None,
) -> DatasetFeatures:
    """Reads the labelled images of a target and computes their features.

    Args:
        target: as for `recipe_for`.
        labels: of a list of images.
        backbone: as for `compute_features`, like the others.
        weights: of the backbone.
        device: to compute on.
        observer: is shown the progress.
        registry: the parts to choose from.

    Raises:
        TlkitError: the images, the recipe or the backbone must be corrected first.
    """
    registry = registry or load_registry()
    labelled = read_labelled(recipe_for(target, labels, observer), registry, observer)
    return compute_features(
        labelled, backbone=backbone, weights=weights, device=device, observer=observer, registry=registry
    )


def compute_features(
    labelled: LabelledImages,
    *,
    backbone: str | None = None,
    weights: str | None = None,
    device: str | None = None,
    observer: Observer | None = None,
    registry: Registry | None = None,
) -> DatasetFeatures:
    """Computes the pooled features of labelled images and of their mirror images, or reads them back.

    They are those that a probe with ``training.mirror`` caches, as `tlkit.fit` does: what one has computed,
    the other reuses.

    Args:
        labelled: the images, from `read_labelled`.
        backbone: in place of the recipe's last phase's, or of the one that `tlkit.fit` uses by default.
        weights: "pretrained", "none", or a .safetensors file; the backbone's default unless given.
        device: such as "cpu" or "cuda:1"; the best one unless given.
        observer: is shown the progress.
        registry: the parts to choose from; all that is installed unless given.

    Raises:
        TlkitError: the images, the recipe or the backbone must be corrected first.
    """
    registry, observer = registry or load_registry(), observer or Observer()
    encoder = _encoder(labelled.recipe, backbone, weights, device, registry, observer)
    return DatasetFeatures(
        labelled=labelled,
        labels=np.array([image.sample.label for image in labelled.images], np.int64),
        mean=pooled_mean(encoder.encode(labelled.images, observer)),
        backbone=encoder.table.name,
        weights=encoder.backbone.weights_origin,
        probes=ProbeFactory(registry, encoder.backbone, labelled.classes),
    )


def _encoder(
    recipe: Recipe,
    backbone: str | None,
    weights: str | None,
    device: str | None,
    registry: Registry,
    observer: Observer,
) -> Encoder:
    """Returns the encoder of the recipe's last backbone, or of the one that is named."""
    if backbone is None and recipe.phases:
        table, preprocess = recipe.phases[-1].backbone, recipe.phases[-1].preprocess
    else:
        name = choose_backbone(backbone, weights, registry=registry, observer=observer)
        table, preprocess = PartSpec(name=name), {}
    if weights is not None:
        table = PartSpec(name=table.name, options={**table.options, "weights": weights})
    return Encoder(table, registry, device=device, recipe=recipe, preprocess=preprocess)
