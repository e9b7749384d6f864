"""The report's section on the test predictions of the classifier."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from tlkit.evaluation.intervals import independent_images
from tlkit.evaluation.metrics import ClassScores, Rejected, TestScores, per_class, reject_curve, rejected
from tlkit.experiment.record import SplitPredictions
from tlkit.experiment.results import PhaseResult
from tlkit.inference.predictor import UNCLASSIFIED
from tlkit.reporting import prediction_charts
from tlkit.reporting.pictures import Album, Picture
from tlkit.utils.formatting import plural

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: With more classes than this only the most frequent predictions of unlabelled images are shown.
PREDICTED_CLASSES_SHOWN = 12
#: With more classes than this only those with the lowest F1 are listed.
CLASSES_LISTED = 30
#: How many of the most confused pairs of classes are listed.
PAIRS_LISTED = 10
#: With more classes than this a confusion matrix is too fine to be seen.
MAX_DRAWN_CLASSES = 100


@dataclass(frozen=True)
class ConfusedPair:
    """Images of one class that are predicted as another.

    Attributes:
        truth: their class.
        predicted: the class that is predicted.
        count: how many there are.
        fraction: of the images of their class.
    """

    truth: str
    predicted: str
    count: int
    fraction: float


@dataclass(frozen=True)
class ResultsSection:
    """The classifier's predictions.

    Attributes:
        phase: the name of the phase that trained it.
        test: its scores on the test images, or else out of fold.
        measured_on: "test images" or "images out of fold".
        rejected: test images that stay unclassified, or None without a threshold.
        charts: confusion, ROC curves, reliability, confidence, reject curve, unlabelled images.
        summary: sentences on the class that is recognised worst, and on the most frequent confusion.
        confused: the pairs of classes that are confused most.
        confused_count: number of pairs of classes that are confused.
        class_scores: scores by class name; with many classes, of those with the lowest F1.
        class_count: number of classes.
    """

    phase: str
    test: TestScores
    measured_on: str
    rejected: Rejected | None
    summary: list[str]
    charts: list[Picture]
    confused: list[ConfusedPair]
    confused_count: int
    class_scores: list[tuple[str, ClassScores]]
    class_count: int


def make_results_section(
    result: PhaseResult,
    results: Sequence[PhaseResult],
    tests: Mapping[str, SplitPredictions],
    unlabelled: SplitPredictions | None,
    classes: Sequence[str],
    threshold: float | None,
    album: Album,
) -> ResultsSection:
    """Makes the section.

    Args:
        result: the result of the phase that trained the classifier.
        results: results of the phases that were taken.
        tests: test predictions by phase, that phase's among them.
        unlabelled: its predictions of images without a label.
        classes: class names.
        threshold: confidence below which an image stays unclassified.
        album: where charts go.
    """
    predictions = tests[result.name]
    unclassified = None
    if threshold is not None:
        unclassified = rejected(predictions.confidence, predictions.correct, threshold)
    charts = [
        *_draw_classes(result, results, tests, classes, album),
        *_draw_confidence(result, predictions, threshold, album),
        _draw_reject_curve(result, predictions, unclassified, album),
    ]
    if unlabelled is not None:
        charts.append(_draw_unlabelled(count_predictions(unlabelled, classes, threshold), album))
    scores = per_class(predictions.probabilities.astype(np.float64), predictions.labels, classes)
    return ResultsSection(
        phase=result.name,
        test=result.measured,
        measured_on=result.measured_on,
        rejected=unclassified,
        summary=_summarise(result.measured, scores, classes),
        charts=charts,
        confused=_confused_pairs(result.measured, classes),
        confused_count=sum(cell.label != cell.predicted for cell in result.measured.confusion),
        class_scores=_listed(scores),
        class_count=len(scores),
    )


def _summarise(measured: TestScores, scores: Mapping[str, ClassScores], classes: Sequence[str]) -> list[str]:
    """Says which class is recognised worst, and what is confused most often; nothing without a mistake."""
    recalls = {name: score.recall for name, score in scores.items() if score.recall is not None}
    confused = measured.most_confused(1)
    if not confused or not recalls:
        return []
    worst = min(recalls, key=recalls.__getitem__)
    images, recall = scores[worst].n, recalls[worst]
    truth, predicted, count = confused[0]
    return [
        f"Recognised worst: {worst}, {round(recall * images):,} of {images:,} images (recall {recall:.3f}).",
        f"Most frequent mistake: {classes[truth]}, predicted as {classes[predicted]}, "
        f"{plural(count, 'image')}.",
    ]


def _confused_pairs(measured: TestScores, classes: Sequence[str]) -> list[ConfusedPair]:
    totals: Counter[int] = Counter()
    for cell in measured.confusion:
        totals[cell.label] += cell.images
    return [
        ConfusedPair(classes[label], classes[predicted], images, images / totals[label])
        for label, predicted, images in measured.most_confused(PAIRS_LISTED)
        if images
    ]


def count_predictions(
    predictions: SplitPredictions, classes: Sequence[str], threshold: float | None
) -> dict[str, int]:
    """Counts predictions by class, and those below the threshold as unclassified.

    With many classes only the most frequent are named.
    """
    accepted = predictions.confidence >= (threshold or 0.0)
    counts = Counter(classes[label] for label in predictions.predicted[accepted])
    if len(classes) > PREDICTED_CLASSES_SHOWN:
        named = dict(counts.most_common(PREDICTED_CLASSES_SHOWN))
    else:
        named = {name: counts[name] for name in classes}
    others = int(accepted.sum()) - sum(named.values())
    if others:
        named["other classes"] = others
    if threshold is not None:
        named[UNCLASSIFIED] = int((~accepted).sum())
    return named


def _draw_classes(
    result: PhaseResult,
    results: Sequence[PhaseResult],
    tests: Mapping[str, SplitPredictions],
    classes: Sequence[str],
    album: Album,
) -> list[Picture]:
    areas = ", ".join(
        f"{name} {'undefined' if auroc is None else f'{auroc:.3f}'}"
        for name, auroc in ((phase.name, phase.measured.auroc) for phase in results)
    )
    average = f"of {classes[1]}" if len(classes) == 2 else "mean over the classes, each against the rest"
    roc = f"ROC curves; area below: {areas} ({average})"
    charts = [_chart(album, "roc", roc, partial(prediction_charts.roc, tests=tests))]
    if len(classes) <= MAX_DRAWN_CLASSES:
        test = result.measured
        wrong = test.n - test.correct
        confusion = (
            f"Confusion of {result.name}: {wrong:,} of {test.n:,} {result.measured_on} are misclassified"
        )
        counts = test.confusion_matrix(len(classes))
        draw = partial(prediction_charts.confusion, counts=counts, classes=classes)
        charts.insert(0, _chart(album, "confusion", confusion, draw))
    return charts


def _draw_confidence(
    result: PhaseResult, predictions: SplitPredictions, threshold: float | None, album: Album
) -> list[Picture]:
    low, high = result.measured.ece_ci95
    error = f"{result.measured.ece:.3f} (95% interval {low:.3f} to {high:.3f})"
    reliability = f"Reliability of {result.name}: calibration error {error}"
    confidence = f"Confidence of {result.name} in correct and in wrong predictions"
    draw_confidence = partial(prediction_charts.confidence, predictions=predictions, threshold=threshold)
    return [
        _chart(
            album, "reliability", reliability, partial(prediction_charts.reliability, predictions=predictions)
        ),
        _chart(album, "confidence", confidence, draw_confidence),
    ]


def _draw_reject_curve(
    result: PhaseResult, predictions: SplitPredictions, unclassified: Rejected | None, album: Album
) -> Picture:
    alt = (
        f"Reject curve of {result.name}: accuracy, with 95% interval, on the share of the "
        f"{result.measured_on} with the highest confidence"
    )
    if unclassified is None:
        alt += "; no threshold is stored"
    else:
        accepted = result.measured.n - unclassified.n
        alt += f"; the threshold of {unclassified.below:g} accepts {accepted / result.measured.n:.1%}"
        if unclassified.accuracy_of_others is not None:
            alt += f", {unclassified.accuracy_of_others:.3f} of them predicted correctly"
    curve = reject_curve(predictions.confidence, predictions.correct)
    independence = 1.0
    if result.test is None and result.out_of_fold is not None:
        independence = independent_images(1)
    draw = partial(
        prediction_charts.reject, curve=curve, unclassified=unclassified, independence=independence
    )
    return _chart(album, "reject-curve", alt, draw)


def _draw_unlabelled(counts: Mapping[str, int], album: Album) -> Picture:
    alt = "Images without a label: " + ", ".join(f"{count:,} {name}" for name, count in counts.items())
    return _chart(album, "unlabelled", alt, partial(prediction_charts.unlabelled, counts=counts))


def _chart(album: Album, name: str, alt: str, draw: Callable[[Figure], None]) -> Picture:
    return album.chart(name, alt, draw, height=3.2, caption=alt)


def _listed(scores: Mapping[str, ClassScores]) -> list[tuple[str, ClassScores]]:
    """Returns all classes, or of many those with the lowest F1; undefined scores come last."""
    if len(scores) <= CLASSES_LISTED:
        return list(scores.items())

    def f1(name: str) -> float:
        value = scores[name].f1
        return 1.0 if value is None else value

    return [(name, scores[name]) for name in sorted(scores, key=f1)[:CLASSES_LISTED]]
