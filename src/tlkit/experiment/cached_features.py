"""The features that a run has cached, of all its images."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tlkit.data.dataset import Dataset
from tlkit.data.images import Image
from tlkit.experiment.prepared_phase import SMALL, PreparedPhase
from tlkit.feature_store.extraction import column_key
from tlkit.feature_store.store import FeatureStore
from tlkit.model.classifier import average_positions

#: Copies are found in a second among this many images.
MAX_IMAGES = 6000


@dataclass(frozen=True)
class CachedFeatures:
    """Features that a run has cached.

    Attributes:
        images: the run's labelled images.
        parts: what of the data each of them is in: its split, or its fold in the first draw.
        pooled: pooled features, float32 ``(N, C)``.
    """

    images: tuple[Image, ...]
    parts: tuple[str, ...]
    pooled: NDArray[np.float32]


def read_cached_features(
    phases: Iterable[PreparedPhase], dataset: Dataset, store: FeatureStore
) -> CachedFeatures | None:
    """Reads the features of the first phase that has cached those of all images; None if none has.

    Nothing is computed. Features of over 256 MB, or of over `MAX_IMAGES` images, are left on the disk.
    """
    splits = dataset.splits
    images = (*splits.train, *splits.val, *splits.test)
    parts = (*_parts_of_training(dataset), *["val"] * len(splits.val), *["test"] * len(splits.test))
    names = [image.sha256 for image in images]
    if len(images) > MAX_IMAGES:
        return None
    for prepared in phases:
        for compute in dict.fromkeys((prepared.evaluation, prepared.compute)):
            for boundary in prepared.network.boundaries if prepared.caches_features else ():
                column = store.column(column_key(boundary, prepared.plain, compute))
                if boundary.shape[0] != 1 or len(boundary.shape) > 4 or column.missing(names):
                    continue
                rows = column.rows(names)
                if 0 < rows.size <= SMALL:
                    features = rows.take(np.arange(len(rows)))[:, 0].float()
                    return CachedFeatures(images, parts, average_positions(features).numpy())
    return None


def _parts_of_training(dataset: Dataset) -> list[str]:
    if dataset.folds is None:
        return ["train"] * len(dataset.splits.train)
    return [f"fold {fold + 1}" for fold in dataset.folds.assignment[0].tolist()]
