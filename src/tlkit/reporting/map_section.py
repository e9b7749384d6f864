"""The report's map of the training images, by the features that the model stores of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tlkit.analysis.audit_file import MapPoint
from tlkit.analysis.feature_map import MIN_IMAGES, choose_images, lay_out
from tlkit.data.dataset import choose_representatives
from tlkit.errors import ReportError
from tlkit.experiment.record import ImageRow
from tlkit.inference.predictor import Predictor
from tlkit.model.unknown import UnknownDetector
from tlkit.reporting.feature_map import Mark, make_map
from tlkit.reporting.pictures import Album, Picture
from tlkit.reporting.run_images import RunImages

#: An image is marked if none of so many nearest neighbours has its label.
NEIGHBOURS = 10
#: How many of the marked images have a picture, and its longest side, in pixels.
PICTURES, LONGEST = 24, 200


@dataclass(frozen=True)
class MapSection:
    """The map in a report.

    Attributes:
        count: number of training images that it is of.
        neighbours: how many nearest neighbours of an image are looked at.
        marked: how many images have no nearest neighbour with their label.
        chart: the map, with these marked.
        pictures: the first of them.
    """

    count: int
    neighbours: int
    marked: int
    chart: Picture
    pictures: list[Picture]


def make_map_section(
    rows: Sequence[ImageRow], classes: Sequence[str], predictor: Predictor, images: RunImages, album: Album
) -> MapSection | None:
    """Makes the section; returns None if the model stores no features, or of too few images.

    Args:
        rows: the run's images, as splits.csv has them.
        classes: names of the classes.
        predictor: the final model, whose detector of unknown images has the features.
        images: finds the images' files.
        album: takes the pictures.

    Raises:
        ReportError: the features are not those of the run's images.
    """
    detector = predictor.unknown
    if not isinstance(detector, UnknownDetector) or len(detector.features) < MIN_IMAGES:
        return None
    train = choose_representatives([row for row in rows if row.split == "train"])
    if len(train) != len(detector.features):
        raise ReportError(
            f"splits.csv has {len(train):,} different training images, the model features of "
            f"{len(detector.features):,}: they are not of one run"
        )
    features = detector.features.float().cpu()
    neighbours = min(NEIGHBOURS, len(train) - 1)
    marked = _among_others(features, [row.label for row in train], neighbours)
    shown = choose_images(len(train), marked)
    coordinates = lay_out(features[torch.from_numpy(shown)].numpy())
    points = [
        MapPoint(image=train[index].id, label=train[index].label or "", x=float(x), y=float(y))
        for index, (x, y) in zip(shown.tolist(), coordinates, strict=True)
    ]
    suspects = [train[index] for index in marked.tolist()]
    mark = Mark(f"none of the {neighbours} most similar has this label", {row.id for row in suspects})
    chart = make_map(points, classes, [mark], len(train), album)
    pictures = []
    for number, row in enumerate(suspects[:PICTURES], 1):
        file, alt, caption = (
            f"among-others-{number}",
            f"{row.id}, among other classes",
            f"{row.label}: {row.id}",
        )
        if picture := images.photo(row.id, album, file, alt, caption, longest=LONGEST):
            pictures.append(picture)
    return MapSection(len(train), neighbours, len(marked), chart, pictures)


def _among_others(features: Tensor, labels: Sequence[str | None], count: int) -> NDArray[np.int64]:
    """Returns the positions of the images none of whose `count` nearest neighbours has their label.

    Args:
        features: of length 1, ``(N, C)``.
        labels: their labels.
        count: how many neighbours.
    """
    similarities = (features @ features.T).fill_diagonal_(-2)
    nearest = similarities.topk(count, dim=1).indices.numpy()
    own = np.unique(np.array(labels, dtype=str), return_inverse=True)[1]
    return np.flatnonzero((own[nearest] != own[:, None]).all(1))
