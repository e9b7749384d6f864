"""What a predictor returns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tlkit.evaluation.metrics import Baselines, ClassScores, Rejected, TestScores
from tlkit.utils.json_files import JsonModel, Proportion


class Predictions(NamedTuple):
    """Labels, and probabilities ``(N, classes)`` in the order of the predictor's classes."""

    labels: list[str]
    probabilities: NDArray[np.float64]


@dataclass(frozen=True)
class Represented:
    """What a classifier makes of images in one pass.

    Attributes:
        images: those that could be read: their paths, or their positions for images that are not files.
        features: their pooled features, ``(N, C)``; the mean over the views that logits are the mean over.
        probabilities: ``(N, classes)``.
        unreadable: (image, reason) of each of the others.
    """

    images: tuple[str, ...]
    features: NDArray[np.float32]
    probabilities: NDArray[np.float64]
    unreadable: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Prediction:
    """The prediction for one image.

    Attributes:
        image: its path, or its position for an image that is not a file.
        label: the class, "unknown" or "unclassified"; None if the image could not be read. Where images may
            have several, all of them with ``|`` between them.
        confidence: the probability of the most probable class; None if it could not be read.
        top: the most probable classes with their probabilities, most probable first.
        error: why it could not be read, or None.
        novelty: how far it is from the training images, "unknown" above the threshold; None if it could not
            be read, or nothing is called unknown.
        labels: where images may have several: those whose probabilities reach their thresholds, with these
            probabilities; None: it has one, or could not be read.
    """

    image: str
    label: str | None
    confidence: float | None
    top: tuple[tuple[str, float], ...]
    error: str | None = None
    novelty: float | None = None
    labels: tuple[tuple[str, float], ...] | None = None


class Mistake(JsonModel):
    """A labelled image whose most probable class is another one.

    Attributes:
        image: its path, or its position for an image that is not a file.
        label: its class.
        predicted: the most probable class.
        confidence: the probability of that class.
    """

    image: str
    label: str
    predicted: str
    confidence: Proportion


class Evaluation(TestScores):
    """Scores on labelled images.

    Attributes:
        per_class: scores of each class, by name.
        baselines: accuracies without looking at the images; the majority class is the largest among them.
        rejected: images that stay unclassified; None without a threshold.
        unknown: number of images that are called unknown; the other scores count them by their most probable
            class. None: nothing is called unknown.
        mistakes: the images that are not predicted correctly, the most confident predictions first.
    """

    per_class: dict[str, ClassScores]
    baselines: Baselines
    rejected: Rejected | None = None
    unknown: int | None = None
    mistakes: tuple[Mistake, ...] = ()


def find_mistakes(
    images: Sequence[str], rows: NDArray[np.float64], truth: NDArray[np.int64], classes: Sequence[str]
) -> tuple[Mistake, ...]:
    """Returns the images whose most probable class is not theirs, the most confident predictions first.

    Args:
        images: their names.
        rows: probabilities, ``(N, classes)``.
        truth: the positions of their classes, ``(N,)``.
        classes: names.
    """
    predicted, confidence = rows.argmax(1), rows.max(1)
    return tuple(
        Mistake(
            image=images[index],
            label=classes[truth[index]],
            predicted=classes[predicted[index]],
            confidence=float(confidence[index]),
        )
        for index in np.argsort(-confidence, kind="stable")
        if predicted[index] != truth[index]
    )
