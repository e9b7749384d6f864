"""Predicts where an image may have several labels, or none."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tlkit.errors import DataError, RunFolderError
from tlkit.evaluation.multilabel import MultilabelScores, evaluate_labels, label_probabilities
from tlkit.inference.exported import OnnxNetwork
from tlkit.inference.pixels import ImageLike, Images, as_images
from tlkit.inference.prediction import Prediction
from tlkit.inference.predictor import Answers, Predictor
from tlkit.parts.preprocess import Preprocess
from tlkit.parts.task import join_labels, split_labels

if TYPE_CHECKING:
    from tlkit.model.classifier import Classifier


class LabelPredictions(NamedTuple):
    """Each image's labels, and probabilities ``(N, classes)`` in the order of the predictor's classes."""

    labels: list[tuple[str, ...]]
    probabilities: NDArray[np.float64]


class MultilabelPredictor(Predictor):
    """A trained classifier of images that may have several labels; see `tlkit.load`.

    Attributes:
        thresholds: the probability of each class from which on an image is said to have it.
    """

    def __init__(
        self,
        network: Classifier | OnnxNetwork,
        preprocess: Preprocess,
        classes: Sequence[str],
        thresholds: Sequence[float],
        **options: Any,
    ) -> None:
        """Takes `thresholds`, and otherwise what `Predictor` does, but no threshold to reject below.

        Raises:
            RunFolderError: there is one, or the number of thresholds is not that of the classes.
        """
        super().__init__(network, preprocess, classes, **options)
        self.thresholds = tuple(thresholds)
        if len(self.thresholds) != len(self.classes):
            raise RunFolderError(f"there are {len(thresholds)} thresholds and {len(classes)} classes")
        if self.reject_below is not None:
            raise RunFolderError("reject_below is for one label per image: this model has several")

    def predict(self, images: Images) -> LabelPredictions:  # type: ignore[override]  # several, in place of one
        """Predicts each image's labels, none or several, and probabilities; see `Predictor.predict`."""
        probabilities = self.predict_proba(images)
        return LabelPredictions([self._labels_of(row) for row in probabilities], probabilities)

    def evaluate(  # type: ignore[override]  # other scores
        self,
        images: Images,
        labels: str | Sequence[str | Sequence[str]],
        *,
        tick: Callable[[int], object] = lambda _: None,
    ) -> MultilabelScores:
        """Computes the classifier's scores on labelled images.

        Args:
            images: as for `predict`.
            labels: each image's class names: a list of them, which may be empty, or one string with ``|``
                between them; a single such string for a single image.
            tick: called with the number of images done since.

        Raises:
            DataError: a label is not a class of this classifier, no image has one, or images cannot be read.
        """
        listed = list(as_images(images))
        truth = self.truth(labels, len(listed))
        return self.score(listed, truth, self._answers(self._run_all(listed, self._network.predict, tick)))

    def truth(self, labels: str | Sequence[str | Sequence[str]], images: int) -> NDArray[np.int64]:
        """Returns 0 or 1 for each class of so many labelled images, ``(N, classes)``.

        Raises:
            DataError: a label is not a class of this classifier, no image has one, or there is another number
                of labels.
        """
        labels = [labels] if isinstance(labels, str) else labels
        if len(labels) != images or not labels:
            raise DataError(f"there are {images} images and {len(labels)} labels")
        truth = np.zeros((images, len(self.classes)), np.int64)
        for row, names in zip(truth, labels, strict=True):
            row[self.label_indices(split_labels(names) if isinstance(names, str) else names)] = 1
        if not truth.any():
            raise DataError("no image has a label: nothing can be measured")
        return truth

    def score(  # type: ignore[override]  # other scores
        self, images: Sequence[ImageLike], truth: NDArray[np.int64], answers: Answers
    ) -> MultilabelScores:
        """Computes scores; see `Predictor.score`."""
        return evaluate_labels(answers.probabilities, truth, self.classes, np.array(self.thresholds))

    def to_probabilities(self, logits: NDArray[np.float32]) -> NDArray[np.float64]:
        """Maps logits to the probability of each class, ``(N, classes)``."""
        return label_probabilities(logits.astype(np.float64))

    def _labels(self, answers: Answers) -> list[str]:
        return [join_labels(self._labels_of(row)) for row in answers.probabilities]

    def _labels_of(self, row: NDArray[np.float64]) -> tuple[str, ...]:
        return tuple(self.classes[index] for index in np.flatnonzero(row >= self.thresholds).tolist())

    def _predictions(self, names: Sequence[str], answers: Answers, top: int) -> Iterator[Prediction]:
        predictions = super()._predictions(names, answers, top)
        for prediction, row in zip(predictions, answers.probabilities, strict=True):
            by_class = dict(zip(self.classes, row.tolist(), strict=True))
            yield replace(prediction, labels=tuple((name, by_class[name]) for name in self._labels_of(row)))
