"""All mistakes of a classifier in small pictures, by pair of classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tlkit.experiment.record import SplitPredictions
from tlkit.reporting.pictures import Album, Picture
from tlkit.reporting.run_images import RunImages

#: Up to so many mistakes all have a picture; of more, so many have one, and so many of each pair at most.
OF_ALL, OF_PAIR = 200, 24
#: How many pairs of classes are shown of more mistakes than that, most frequent first.
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
        pair_count: how many pairs of classes they are of.
        pairs: by pair of classes, most frequent first; of many, the first.
    """

    count: int
    shown: int
    pair_count: int
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
    of_pair, shown_pairs = (OF_ALL, OF_ALL) if len(wrong) <= OF_ALL else (OF_PAIR, PAIRS)
    pairs, shown = [], 0
    for (truth, predicted), indices in ordered[:shown_pairs]:
        pictures = []
        for position in indices[: min(of_pair, OF_ALL - shown)]:
            if picture := _picture(predictions, position, f"error-{shown + 1}", images, album):
                pictures.append(picture)
                shown += 1
        pairs.append(MistakenPair(classes[truth], classes[predicted], len(indices), pictures))
    return Mistakes(len(wrong), shown, len(ordered), pairs)


def _picture(
    predictions: SplitPredictions, index: int, name: str, images: RunImages, album: Album
) -> Picture | None:
    image_id = predictions.ids[index]
    caption = f"{predictions.confidence[index]:.3f} · {image_id}"
    return images.photo(image_id, album, name, f"{image_id}, misclassified", caption, longest=LONGEST)
