"""All mistakes of a classifier in small pictures, by pair of classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tlkit.experiment.record import SplitPredictions
from tlkit.reporting.pictures import Album, Picture
from tlkit.reporting.run_images import RunImages

#: How many mistakes have a picture: of each pair at most, and of all.
OF_PAIR, OF_ALL = 24, 100
#: How many pairs of classes are shown, most frequent first.
PAIRS = 30
#: Longest side of a picture, in pixels.
LONGEST = 200


@dataclass(frozen=True)
class MistakenPair:
    """The images of one class that were predicted as another.

    Attributes:
        truth: their class.
        predicted: the class that was predicted.
        count: how many there are.
        pictures: of those with the highest confidence.
    """

    truth: str
    predicted: str
    count: int
    pictures: list[Picture]


@dataclass(frozen=True)
class Mistakes:
    """The mistakes on a set of images.

    Attributes:
        count: how many there are.
        shown: how many have a picture.
        pairs: by pair of classes, most frequent first.
    """

    count: int
    shown: int
    pairs: list[MistakenPair]


def make_mistakes(
    predictions: SplitPredictions, classes: Sequence[str], images: RunImages, album: Album
) -> Mistakes | None:
    """Makes the pictures; returns None without a mistake. Images that cannot be found are not shown."""
    wrong = np.flatnonzero(~predictions.correct)
    if not len(wrong):
        return None
    # most confident first, within each pair
    wrong = wrong[np.argsort(-predictions.confidence[wrong], kind="stable")]
    by_pair: dict[tuple[int, int], list[int]] = {}
    for index in wrong:
        pair = int(predictions.labels[index]), int(predictions.predicted[index])
        by_pair.setdefault(pair, []).append(int(index))
    ordered = sorted(by_pair.items(), key=lambda item: (-len(item[1]), item[0]))
    pairs, shown = [], 0
    for (truth, predicted), indices in ordered[:PAIRS]:
        pictures = []
        for position in indices[: min(OF_PAIR, OF_ALL - shown)]:
            if picture := _picture(predictions, position, f"error-{shown + 1}", images, album):
                pictures.append(picture)
                shown += 1
        pairs.append(MistakenPair(classes[truth], classes[predicted], len(indices), pictures))
    return Mistakes(len(wrong), shown, pairs)


def _picture(
    predictions: SplitPredictions, index: int, name: str, images: RunImages, album: Album
) -> Picture | None:
    image_id = predictions.ids[index]
    image = images.read(image_id)
    if image is None:
        return None
    _, pixels = image
    caption = f"{predictions.confidence[index]:.3f} · {image_id}"
    return album.photo(name, f"{image_id}, misclassified", np.asarray(pixels), caption, longest=LONGEST)
