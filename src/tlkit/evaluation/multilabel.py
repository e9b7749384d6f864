"""Scores where an image may have several labels, or none.

| score | source |
| --- | --- |
| `average_precision` | `sklearn.metrics.average_precision_score` of a class |
| `mean_average_precision` | its mean over the classes that have images |
| `precision`, `recall`, `f1` | `sklearn.metrics.precision_recall_fscore_support` at the class's threshold |
| `macro_f1` | mean F1 of the classes that have images |
| `micro_f1` | `sklearn.metrics.f1_score` of all classes' answers together |
| `log_loss` | mean of ``-ln p(answer)`` over images and classes |
| intervals | Wilson's (1927), 95%, with ``n = v (1 - v) / s²`` |

There, ``v`` is the score and ``s²`` its variance in a bootstrap over images. With few images of a class this
variance is too low. It is first averaged with the largest there can be, ``v (1 - v)`` per image, as if each
class (of micro F1, all of them together) had ten more images of that variance.

In all of it, ``probabilities`` are ``(N, classes)`` and ``labels`` 0 or 1 for each class, ``(N, classes)``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydantic import NonNegativeFloat

from tlkit.errors import DataError
from tlkit.evaluation.intervals import wilson
from tlkit.evaluation.metrics import EPSILON
from tlkit.utils.json_files import JsonModel, NonNegative, Proportion

#: The threshold of a class that no image has, of those that thresholds are chosen on.
DEFAULT_THRESHOLD = 0.5
#: Bootstrap samples of an interval, and numbers that are held of them at a time.
RESAMPLES = 1000
HELD = 2_000_000
#: How many images of the largest variance each class is taken to have in addition. Chosen by how often
#: intervals held the truth: benchmarks/RESULTS.md.
ADDED_IMAGES = 10


class Estimate(JsonModel):
    """A score and its 95% interval."""

    value: Proportion
    ci95: tuple[Proportion, Proportion]


class LabelScores(JsonModel):
    """Scores of one class; those that are undefined are None.

    Attributes:
        positives: number of images that have this class.
        average_precision: area under its precision-recall curve.
        threshold: the probability from which on the classifier says that an image has it. The scores that
            follow are at this threshold, or, out of fold, at those that were chosen on the other folds.
        precision: fraction of the images that are said to have it that do.
        recall: fraction of the images that have it that are said to.
        f1: harmonic mean of the two.
    """

    positives: NonNegative
    average_precision: Proportion | None
    threshold: Proportion
    precision: Proportion | None
    recall: Proportion | None
    f1: Proportion | None


class MultilabelScores(JsonModel):
    """Scores where an image may have several labels.

    Attributes:
        n: number of images.
        mean_average_precision: mean of the classes' average precision; those without an image do not count.
        macro_f1: mean of the classes' F1 at their thresholds; those without an image do not count.
        micro_f1: F1 of all classes' answers together.
        chance: the mean average precision of random scores: the classes' mean share of the images.
        log_loss: mean binary cross-entropy of images and classes, in nats.
        per_class: scores of each class, by name.
    """

    n: NonNegative
    mean_average_precision: Estimate
    macro_f1: Estimate
    micro_f1: Estimate
    chance: Proportion
    log_loss: NonNegativeFloat
    per_class: dict[str, LabelScores]


class MultilabelOutOfFold(MultilabelScores):
    """Scores of out-of-fold predictions: each image's come from models that did not see it.

    An image's labels are those above thresholds that were chosen on the other folds' images, or above 0.5
    where a single fold was trained. Intervals are wider than those of as many test images, see
    `tlkit.evaluation.intervals`.

    Attributes:
        folds: number of folds that were trained.
        repeats: how many times the folds were drawn.
        untested: classes with images in no fold, all of which are trained on.
    """

    folds: NonNegative
    repeats: NonNegative
    untested: tuple[str, ...]


def evaluate_labels(
    probabilities: NDArray[np.float64],
    labels: NDArray[np.int64],
    classes: Sequence[str],
    thresholds: NDArray[np.float64],
    *,
    answers: NDArray[np.bool_] | None = None,
    independent: float | None = None,
) -> MultilabelScores:
    """Computes all scores.

    Args:
        probabilities: of each class.
        labels: 0 or 1 for each class.
        classes: class names.
        thresholds: of the classes, ``(classes,)``.
        answers: whether an image is said to have a class; where its probability reaches the threshold, unless
            given.
        independent: how many independent images they are worth; all of them unless given.

    Raises:
        DataError: no image has a label.
    """
    if not labels.any():
        raise DataError("no image has a label: nothing can be measured")
    if answers is None:
        answers = probabilities >= thresholds
    per_class = _per_class(probabilities, labels, classes, thresholds, answers)
    scored = [scores for scores in per_class.values() if scores.positives]
    size = independent or len(labels)
    precisions, f1s, micros = _resampled(probabilities, labels, answers, max(1, round(size)))
    positives = np.array([scores.positives for scores in scored]) * size / len(labels)
    # the largest variance of a mean of k classes is v (1 - v) sum(1 / positives) / k²
    images = len(scored) ** 2 / float((1 / positives).sum())
    of_answer = np.where(labels == 1, probabilities, 1 - probabilities).clip(EPSILON, 1)
    return MultilabelScores(
        n=len(labels),
        mean_average_precision=_estimate(
            [scores.average_precision or 0.0 for scores in scored], precisions, images
        ),
        macro_f1=_estimate([scores.f1 or 0.0 for scores in scored], f1s, images),
        micro_f1=_estimate([_micro_f1(answers, labels)], micros, float(positives.sum())),
        chance=float(labels.mean(0)[labels.any(0)].mean()),
        log_loss=float(-np.log(of_answer).mean()),
        per_class=per_class,
    )


def label_probabilities(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Maps logits to the probability of each class, whatever that of the others is."""
    from scipy.special import expit

    result: NDArray[np.float64] = expit(logits)
    return result


def mean_average_precision(scores: NDArray[np.floating], labels: NDArray[np.int64]) -> float:
    """Computes the mean over the classes that have images; 0 without any. `scores` may be logits."""
    defined = average_precisions(scores, labels)
    defined = defined[~np.isnan(defined)]
    return float(defined.mean()) if len(defined) else 0.0


def average_precisions(scores: NDArray[np.floating], labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """Computes the average precision of each class, ``(classes,)``; NaN of one that no image has."""
    from sklearn.metrics import average_precision_score

    values = [
        average_precision_score(of_class, score) if of_class.any() else np.nan
        for score, of_class in zip(scores.T, labels.T, strict=True)
    ]
    return np.minimum(values, 1.0)  # it is a sum, which may be rounded to more


def choose_thresholds(probabilities: NDArray[np.float64], labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """Chooses each class's threshold, ``(classes,)``: that of the highest F1 on these images.

    It lies halfway to the next lower probability, so that it does not depend on one image's last digits.
    """
    return np.array(
        [_best_threshold(score, of_class) for score, of_class in zip(probabilities.T, labels.T, strict=True)]
    )


def _best_threshold(score: NDArray[np.float64], has_class: NDArray[np.int64]) -> float:
    if not has_class.any():
        return DEFAULT_THRESHOLD
    order = np.argsort(-score, kind="stable")
    descending, hits = score[order], has_class[order].cumsum()
    # images of equal probability are on the same side
    last = np.flatnonzero(np.append(descending[:-1] != descending[1:], True))
    f1 = 2 * hits[last] / (last + 1 + has_class.sum())
    best = int(f1.argmax())
    below = descending[last[best + 1]] if best + 1 < len(last) else 0.0
    return float((descending[last[best]] + below) / 2)


def _per_class(
    probabilities: NDArray[np.float64],
    labels: NDArray[np.int64],
    classes: Sequence[str],
    thresholds: NDArray[np.float64],
    answers: NDArray[np.bool_],
) -> dict[str, LabelScores]:
    from sklearn.metrics import precision_recall_fscore_support

    # "micro", "macro" aside, scikit-learn takes a single column for two classes, hence one column at a time
    rows = {}
    for column, (name, precision) in enumerate(
        zip(classes, average_precisions(probabilities, labels), strict=True)
    ):
        at_threshold = precision_recall_fscore_support(
            labels[:, column], answers[:, column], pos_label=1, average="binary", zero_division=np.nan
        )[:3]
        values = [None if np.isnan(value) else float(value) for value in (precision, *at_threshold)]
        rows[name] = LabelScores(
            positives=int(labels[:, column].sum()),
            average_precision=values[0],
            threshold=float(thresholds[column]),
            precision=values[1],
            recall=values[2],
            f1=values[3],
        )
    return rows


def _micro_f1(answers: NDArray[np.bool_], labels: NDArray[np.int64]) -> float:
    from sklearn.metrics import f1_score

    return float(f1_score(labels.ravel(), answers.ravel(), zero_division=0.0))


def _estimate(values: Sequence[float], resampled: NDArray[np.float64], images: float) -> Estimate:
    """Returns the mean of the classes' values, and its interval.

    Args:
        values: those that are defined.
        resampled: the mean in bootstrap samples; NaN where it is undefined.
        images: the number for which ``v (1 - v) / images`` is the largest variance that the mean can have.
    """
    value, per_class = float(np.mean(values)), images / len(values)
    largest = value * (1 - value) / images
    # the variance, and then that with images added, as parts of the largest
    part = float(np.nanvar(resampled)) / largest if largest else 1.0
    part = max(part, (per_class * part + ADDED_IMAGES) / (per_class + ADDED_IMAGES))
    return Estimate(value=value, ci95=wilson(value, images / part))


def _resampled(
    probabilities: NDArray[np.float64],
    labels: NDArray[np.int64],
    answers: NDArray[np.bool_],
    size: int,
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Returns mean average precision, macro and micro F1 of bootstrap samples of `size` images.

    A class that a sample lacks does not count in it; where a sample has no label at all, they are NaN.
    """
    ranked = [_Ranked.of(*of_class) for of_class in zip(probabilities.T, labels.T, strict=True)]
    flags = [values.astype(np.float32) for values in ((labels == 1) & answers, answers, labels)]
    precisions, macros, micros = [], [], []
    for weights in _samples(len(labels), size):
        precisions.append(
            _mean_defined(np.stack([of_class.average_precision(weights) for of_class in ranked]))
        )
        hits, said, have = (values.T @ weights for values in flags)
        f1 = 2 * hits / (said + have).clip(min=1)
        macros.append(_mean_defined(np.where(have > 0, f1, np.nan)))
        counted = (said + have).sum(0)
        micros.append(np.where(counted > 0, 2 * hits.sum(0) / counted.clip(min=1), np.nan))
    return np.concatenate(precisions), np.concatenate(macros), np.concatenate(micros)


def _samples(count: int, size: int) -> Iterator[NDArray[np.float32]]:
    """Yields how often each image is in each bootstrap sample, ``(N, samples)``, some samples at a time."""
    generator = np.random.default_rng(0)  # the same interval for the same predictions
    at_once = max(1, min(RESAMPLES, HELD // count))
    for begin in range(0, RESAMPLES, at_once):
        drawn = min(at_once, RESAMPLES - begin)
        weights = generator.multinomial(size, np.full(count, 1 / count), size=drawn)
        yield np.ascontiguousarray(weights.T, np.float32)


@dataclass(frozen=True)
class _Ranked:
    """The images in descending order of a class's probability, down to the last that has the class.

    Attributes:
        order: their positions.
        steps: where each group of images begins that ends with ties of an image that has the class.
        positives: positions of the images that have it.
        groups: where the first of them is in each of these groups.
    """

    order: NDArray[np.int64]
    steps: NDArray[np.int64]
    positives: NDArray[np.int64]
    groups: NDArray[np.int64]

    @staticmethod
    def of(probability: NDArray[np.float64], has_class: NDArray[np.int64]) -> _Ranked:
        """Ranks images by the probability of a class."""
        order = np.argsort(-probability, kind="stable")
        descending, hits = probability[order], has_class[order].cumsum()
        last = np.flatnonzero(np.append(descending[:-1] != descending[1:], True))
        hits_above = hits[last]
        raises = np.diff(hits_above, prepend=0) > 0
        ends, before = last[raises], hits_above[raises]
        steps = np.concatenate([[0], ends[:-1] + 1])[: len(ends)]
        groups = np.concatenate([[0], before[:-1]])[: len(ends)]
        ranked = order[: ends[-1] + 1] if len(ends) else order[:0]
        return _Ranked(ranked, steps, ranked[has_class[ranked] == 1], groups)

    def average_precision(self, weights: NDArray[np.float32]) -> NDArray[np.float64]:
        """Computes the average precision in samples that have images so often; NaN without the class."""
        if not len(self.steps):
            return np.full(weights.shape[1], np.nan)
        seen = np.add.reduceat(weights[self.order], self.steps, axis=0).cumsum(0)
        gained = np.add.reduceat(weights[self.positives], self.groups, axis=0)
        hits = gained.cumsum(0)
        areas = (gained * (hits / seen.clip(min=1))).sum(0, dtype=np.float64)
        return np.where(hits[-1] > 0, areas / hits[-1].clip(min=1), np.nan)


def _mean_defined(values: NDArray[np.floating]) -> NDArray[np.float64]:
    """Returns the mean over the classes of the values that are defined; NaN without any."""
    defined = ~np.isnan(values)
    sums, counts = np.where(defined, values, 0.0).sum(0), defined.sum(0)
    means: NDArray[np.float64] = np.where(counts > 0, sums / counts.clip(min=1), np.nan)
    return means
