"""The scores of a phase where an image may have several labels, and the thresholds of its answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray
from pydantic import model_validator

from tlkit.data.folds import Folds
from tlkit.evaluation.intervals import independent_images
from tlkit.evaluation.multilabel import (
    MultilabelOutOfFold,
    MultilabelScores,
    choose_thresholds,
    evaluate_labels,
)
from tlkit.utils.json_files import JsonModel


class MultilabelResult(JsonModel):
    """The scores of a phase where an image may have several labels.

    Attributes:
        val: on the validation images; F1 is too good by a little, since the thresholds were chosen on them.
            None in a cross-validation.
        test: on the test images, at the thresholds that were chosen on validation images or out of fold; None
            without any.
        out_of_fold: of the training images in a cross-validation; None without one.
    """

    val: MultilabelScores | None
    test: MultilabelScores | None
    out_of_fold: MultilabelOutOfFold | None

    @property
    def measured(self) -> MultilabelScores:
        """The scores that tell how good the phase is: on test images, or else out of fold."""
        scores = self.test or self.out_of_fold
        assert scores is not None  # validated
        return scores

    @property
    def chosen_on(self) -> str:
        """What the thresholds were chosen on."""
        return "validation images" if self.out_of_fold is None else "images out of fold"

    @property
    def thresholds(self) -> tuple[float, ...]:
        """The probability of each class from which on an image is said to have it."""
        return tuple(scores.threshold for scores in self.measured.per_class.values())

    @model_validator(mode="after")
    def _is_measured(self) -> Self:
        if self.test is None and self.out_of_fold is None:
            raise ValueError("there are neither scores of test images nor of folds")
        return self


@dataclass(frozen=True)
class PredictedPart:
    """What was predicted for the labelled images of one part.

    Attributes:
        probabilities: of each class, ``(N, classes)``.
        labels: 0 or 1 for each class, ``(N, classes)``.
    """

    probabilities: NDArray[np.float64]
    labels: NDArray[np.int64]


@dataclass(frozen=True)
class CrossValidated:
    """How the predictions of the part "out-of-fold" came about.

    Attributes:
        folds: the folds.
        trained: number of them that were trained.
        repeats: number of draws that were predicted.
        fold_of: the fold of each image in the first draw, ``(N,)``.
    """

    folds: Folds
    trained: int
    repeats: int
    fold_of: NDArray[np.int64]


def score_parts(
    parts: Mapping[str, PredictedPart], classes: Sequence[str], validated: CrossValidated | None
) -> tuple[MultilabelResult, NDArray[np.float64], NDArray[np.bool_] | None]:
    """Chooses the classes' thresholds, and computes the scores of each part.

    Args:
        parts: "val" or "out-of-fold", and "test" where there are test images.
        classes: class names.
        validated: how those out of fold came about; None: there are validation images.

    Returns:
        The scores, the thresholds ``(classes,)``, and the answers out of fold, at thresholds that were chosen
        on the other folds' images.
    """
    chosen_on = parts["val" if validated is None else "out-of-fold"]
    thresholds = choose_thresholds(chosen_on.probabilities, chosen_on.labels)
    val, test = (
        evaluate_labels(part.probabilities, part.labels, classes, thresholds) if part else None
        for part in (parts.get("val"), parts.get("test"))
    )
    if validated is None:
        return MultilabelResult(val=val, test=test, out_of_fold=None), thresholds, None
    answers = np.zeros(chosen_on.labels.shape, np.bool_)
    for fold in np.unique(validated.fold_of):
        held_out = validated.fold_of == fold
        others = choose_thresholds(chosen_on.probabilities[~held_out], chosen_on.labels[~held_out])
        answers[held_out] = chosen_on.probabilities[held_out] >= others
    scores = evaluate_labels(
        chosen_on.probabilities,
        chosen_on.labels,
        classes,
        thresholds,
        answers=answers,
        independent=independent_images(len(answers)),
    )
    out_of_fold = MultilabelOutOfFold(
        **scores.model_dump(),
        folds=validated.trained,
        repeats=validated.repeats,
        untested=validated.folds.untested,
    )
    return MultilabelResult(val=val, test=test, out_of_fold=out_of_fold), thresholds, answers
