"""Scores of predictions, each from the package that is known for it.

| score | source |
| --- | --- |
| `n`, `correct`, `accuracy` | counted |
| `ci95` | Wilson's interval of the accuracy, `tlkit.evaluation.intervals` |
| `top5` | fraction of the images whose label is among the five most probable classes; None with up to five |
| `balanced_accuracy` | mean recall of the classes, as `sklearn.metrics.balanced_accuracy_score` |
| `macro_f1` | mean F1 of the classes, `sklearn.metrics.f1_score` |
| `log_loss` | mean of ``-ln p(true class)``; p is clipped to a float32 epsilon from 0 and 1 |
| `auroc` | of class 1 for two classes, `sklearn.metrics.roc_auc_score`, else the mean over one-vs-rest |
| `ece` | expected calibration error of the top class, 15 bins of equal width (Guo et al. 2017) |
| `ece_ci95` | bootstrap interval of it, `tlkit.evaluation.calibration_error` |
| `confusion` | `sklearn.metrics.confusion_matrix` without its zeros, which may be millions |
| `precision`, `recall`, `f1` | `sklearn.metrics.precision_recall_fscore_support` |

Classes without an image in the evaluated set are left out of `balanced_accuracy` and `macro_f1`.

The predicted class is the most probable one, and of equally probable ones the first.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import NonNegativeFloat, model_validator

from tlkit.evaluation.calibration_error import calibration_error, calibration_error_interval
from tlkit.evaluation.intervals import wilson
from tlkit.utils.formatting import plural
from tlkit.utils.json_files import JsonModel, NonNegative, Proportion

#: An image is correct among the first of this many classes.
TOP = 5
EPSILON = float(np.finfo(np.float32).eps)
#: Classes are unequal if the largest has more than this many times the smallest's images.
UNEQUAL_RATIO = 3


class Scores(JsonModel):
    """Scores on validation images.

    Attributes:
        n: number of images.
        correct: number of images whose predicted class is the label.
        accuracy: correct / n.
        ci95: 95% interval of the accuracy.
        balanced_accuracy: mean recall of the classes; each class counts equally, however many images it has.
        macro_f1: mean F1 of the classes.
        log_loss: mean negative log-likelihood of the labels, in nats; of probabilities after temperature
            scaling, unlike the losses in history.csv.
    """

    n: NonNegative
    correct: NonNegative
    accuracy: Proportion
    ci95: tuple[Proportion, Proportion]
    balanced_accuracy: Proportion
    macro_f1: Proportion
    log_loss: NonNegativeFloat

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        low, high = self.ci95
        if self.correct > self.n or not low - 1e-9 <= self.accuracy <= high + 1e-9:
            raise ValueError(
                f"{self.correct} of {self.n}, {self.accuracy} and {self.ci95} cannot all be true"
            )
        return self


class ConfusionCell(NamedTuple):
    """How many images of one class are predicted as another, or as itself; classes are given by index."""

    label: NonNegative
    predicted: NonNegative
    images: NonNegative


class TestScores(Scores):
    """Scores on test images.

    Attributes:
        top5: fraction of the images whose label is among the five most probable classes; None with up to
            five classes.
        auroc: area under the ROC curve; None where a class has no image or a probability is not finite.
        ece: expected calibration error.
        ece_ci95: bootstrap interval of it, see `tlkit.evaluation.calibration_error`.
        confusion: the cells of the confusion matrix that are not zero, by label and then by prediction.
    """

    __test__ = False  # not a test case of pytest's

    top5: Proportion | None
    auroc: Proportion | None
    ece: Proportion
    ece_ci95: tuple[Proportion, Proportion]
    confusion: tuple[ConfusionCell, ...]

    def confusion_matrix(self, classes: int) -> NDArray[np.int64]:
        """Returns the confusion matrix: a row per true class, and a column per predicted class."""
        matrix = np.zeros((classes, classes), np.int64)
        for label, predicted, images in self.confusion:
            matrix[label, predicted] = images
        return matrix

    def most_confused(self, limit: int) -> list[ConfusionCell]:
        """Returns the pairs of classes that are confused most often, most frequent first."""
        wrong = [cell for cell in self.confusion if cell.label != cell.predicted]
        return sorted(wrong, key=lambda cell: -cell.images)[:limit]

    def describe_inequality(self, classes: Sequence[str]) -> str:
        """Describes how unequal the classes are, if the largest has over three times the smallest's images.

        Classes without an image do not count.
        """
        counts: Counter[str] = Counter()
        for label, _, images in self.confusion:
            counts[classes[label]] += images
        if max(counts.values(), default=0) <= UNEQUAL_RATIO * min(counts.values(), default=0):
            return ""
        largest, smallest = max(counts, key=counts.__getitem__), min(counts, key=counts.__getitem__)
        described = f"{plural(counts[largest], 'image')} of {largest}, {counts[smallest]:,} of {smallest}"
        return f"The classes are unequal: {described}."


class Baselines(JsonModel):
    """Accuracies of predictions that do not look at the images.

    Attributes:
        chance: of choosing each class with the same probability: 1 / classes.
        majority: of always predicting `majority_class`: its share of the images.
        majority_class: the largest class.
    """

    chance: Proportion
    majority: Proportion
    majority_class: str


class ClassScores(JsonModel):
    """Scores of one class; those that are undefined are None.

    Attributes:
        n: number of images of this class.
        precision: fraction of the images predicted as this class that belong to it.
        recall: fraction of its images that are predicted as it.
        f1: harmonic mean of the two.
    """

    n: NonNegative
    precision: Proportion | None
    recall: Proportion | None
    f1: Proportion | None


class Rejected(JsonModel):
    """Images that stay unclassified.

    Attributes:
        below: the confidence below which an image is rejected.
        n: number of rejected images.
        accuracy_of_others: accuracy on the other images, or None if there are none.
    """

    below: Proportion
    n: NonNegative
    accuracy_of_others: Proportion | None


@dataclass(frozen=True)
class RejectCurve:
    """Accuracy of the images that are accepted, for every threshold from the strictest to the laxest.

    Attributes:
        thresholds: confidence from which on an image is accepted, ``(M,)``, descending.
        accepted: number of images that are, ``(M,)``.
        coverage: their fraction of all images, ``(M,)``; the last is 1.
        accuracy: fraction of them that is correct, ``(M,)``.
    """

    thresholds: NDArray[np.float64]
    accepted: NDArray[np.int64]
    coverage: NDArray[np.float64]
    accuracy: NDArray[np.float64]


def evaluate(
    probabilities: NDArray[np.float64], labels: NDArray[np.int64], *, independent: float | None = None
) -> TestScores:
    """Computes all scores of a test set.

    Args:
        probabilities: ``(N, classes)``; each row sums to 1.
        labels: true classes, ``(N,)``.
        independent: how many independent predictions they are worth; all of them unless given.
    """
    confidence, correct = probabilities.max(1), probabilities.argmax(1) == labels
    return TestScores(
        **summary(probabilities, labels, independent=independent).model_dump(),
        top5=_top5(probabilities, labels),
        auroc=_auroc(probabilities, labels),
        ece=calibration_error(confidence, correct),
        ece_ci95=calibration_error_interval(confidence, correct, independent=independent),
        confusion=_confusion(probabilities, labels),
    )


def baselines(counts: Mapping[str, int], majority_class: str) -> Baselines:
    """Computes the baselines of an image set.

    Args:
        counts: number of images of each class, by its name.
        majority_class: the class that is always predicted, such as the one with most training images.
    """
    return Baselines(
        chance=1 / len(counts),
        majority=counts[majority_class] / sum(counts.values()),
        majority_class=majority_class,
    )


def summary(
    probabilities: NDArray[np.float64], labels: NDArray[np.int64], *, independent: float | None = None
) -> Scores:
    """Computes the scores of a validation set; see `evaluate`."""
    n, predicted = len(labels), probabilities.argmax(1)
    correct = int((predicted == labels).sum())
    of_label = np.clip(probabilities[np.arange(n), labels], EPSILON, 1 - EPSILON)
    return Scores(
        n=n,
        correct=correct,
        accuracy=correct / n,
        ci95=wilson(correct / n, independent or n),
        balanced_accuracy=balanced_accuracy(predicted, labels),
        macro_f1=_macro_f1(predicted, labels),
        log_loss=float(-np.log(of_label).mean()),
    )


def balanced_accuracy(predicted: NDArray[np.int64], labels: NDArray[np.int64]) -> float:
    """Computes the mean recall of the classes that have images.

    It is `sklearn.metrics.balanced_accuracy_score`, which checks its arguments for 1.5 ms: as long as an
    epoch on cached features takes.

    Args:
        predicted: predicted classes, ``(N,)``.
        labels: true classes, ``(N,)``.
    """
    counts = np.bincount(labels)
    correct = np.bincount(labels[predicted == labels], minlength=len(counts))
    return float(np.mean(correct[counts > 0] / counts[counts > 0]))


def per_class(
    probabilities: NDArray[np.float64], labels: NDArray[np.int64], classes: Sequence[str]
) -> dict[str, ClassScores]:
    """Computes the scores of each class, by its name."""
    from sklearn.metrics import precision_recall_fscore_support

    precision, recall, f1, counts = precision_recall_fscore_support(
        labels, probabilities.argmax(1), labels=range(len(classes)), zero_division=np.nan
    )

    def defined(value: float) -> float | None:
        return None if np.isnan(value) else float(value)

    return {
        name: ClassScores(
            n=int(counts[index]),
            precision=defined(precision[index]),
            recall=defined(recall[index]),
            f1=defined(f1[index]),
        )
        for index, name in enumerate(classes)
    }


def rejected(confidence: NDArray[np.floating], correct: NDArray[np.bool_], below: float) -> Rejected:
    """Counts the images whose confidence is below a threshold; arguments as for `reject_curve`."""
    accepted = confidence >= below
    return Rejected(
        below=below,
        n=int((~accepted).sum()),
        accuracy_of_others=float(correct[accepted].mean()) if accepted.any() else None,
    )


def reject_curve(confidence: NDArray[np.floating], correct: NDArray[np.bool_]) -> RejectCurve:
    """Computes accuracy against coverage for every threshold (El-Yaniv and Wiener, 2010).

    Args:
        confidence: probability of the predicted class, ``(N,)``.
        correct: whether the predicted class is the label, ``(N,)``.
    """
    order = np.argsort(-confidence, kind="stable")
    thresholds = confidence[order]
    # images of equal confidence are accepted together
    last = np.flatnonzero(np.append(thresholds[:-1] != thresholds[1:], True))
    accepted = last + 1
    return RejectCurve(
        thresholds=thresholds[last].astype(np.float64),
        accepted=accepted,
        coverage=accepted / len(confidence),
        accuracy=correct[order].cumsum()[last] / accepted,
    )


def _macro_f1(predicted: NDArray[np.int64], labels: NDArray[np.int64]) -> float:
    from sklearn.metrics import f1_score

    return float(f1_score(labels, predicted, labels=np.unique(labels), average="macro"))


def _auroc(probabilities: NDArray[np.float64], labels: NDArray[np.int64]) -> float | None:
    from scipy.stats import rankdata
    from sklearn.metrics import roc_auc_score

    classes = probabilities.shape[1]
    if len(np.unique(labels)) < classes or not np.isfinite(probabilities).all():
        return None
    probabilities = probabilities.clip(0, 1)  # rounding errors beside 0 and 1 are ties
    if classes == 2:
        return float(roc_auc_score(labels, probabilities[:, 1]))
    # sklearn's own multiclass form insists that rows sum to exactly 1, and is slow for many classes
    positives = np.bincount(labels)
    areas = []
    for label, count in enumerate(positives.tolist()):
        ranks = rankdata(probabilities[:, label])[labels == label]  # Mann and Whitney's statistic
        areas.append((ranks.sum() - count * (count + 1) / 2) / (count * (len(labels) - count)))
    return float(np.mean(areas))


def _top5(probabilities: NDArray[np.float64], labels: NDArray[np.int64]) -> float | None:
    # sklearn's own sorts all classes of every image
    count = probabilities.shape[1]
    if count <= TOP:
        return None
    of_label = probabilities[np.arange(len(labels)), labels][:, None]
    before = np.arange(count) < labels[:, None]
    rank = ((probabilities > of_label) | ((probabilities == of_label) & before)).sum(1)
    return float((rank < TOP).mean())


def _confusion(probabilities: NDArray[np.float64], labels: NDArray[np.int64]) -> tuple[ConfusionCell, ...]:
    from sklearn.metrics import confusion_matrix

    cells = confusion_matrix(labels, probabilities.argmax(1), labels=range(probabilities.shape[1]))
    rows, columns = np.nonzero(cells)
    counts = cells[rows, columns]
    return tuple(map(ConfusionCell, rows.tolist(), columns.tolist(), counts.tolist()))
