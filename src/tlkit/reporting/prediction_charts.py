"""Charts of predictions: which classes are confused, and whether confidence matches accuracy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tlkit.evaluation.calibration_error import BINS, calibration_bins
from tlkit.evaluation.intervals import wilson
from tlkit.evaluation.metrics import RejectCurve, Rejected
from tlkit.experiment.record import SplitPredictions
from tlkit.inference.predictor import UNCLASSIFIED
from tlkit.reporting.pictures import COLOURS, GREY, INK
from tlkit.reporting.run_charts import shortened

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: With more classes than this a confusion matrix is drawn without numbers and names.
MAX_NUMBERED_CLASSES = 12
#: With more classes than this its cells have numbers without percentages.
MAX_PERCENTAGES = 8
#: Lines differ by more than colour.
LINE_STYLES = ("-", "--", "-.", ":")
#: More points than this of a reject curve are left out.
MAX_CURVE_POINTS = 300
#: False positive rates at which ROC curves are drawn.
GRID: NDArray[np.float64] = np.unique(np.concatenate([np.linspace(0, 0.1, 101), np.linspace(0.1, 1, 181)]))


def confusion(figure: Figure, counts: NDArray[np.int64], classes: Sequence[str]) -> None:
    """Draws the confusion matrix: a row per true class, a column per predicted class.

    Colours and percentages are of the images of the true class.
    """
    axes = figure.subplots()
    fractions = counts / counts.sum(1, keepdims=True).clip(1)
    axes.imshow(fractions, cmap="Blues", vmin=0, vmax=1)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    axes.spines[:].set_visible(False)
    if len(classes) > MAX_NUMBERED_CLASSES:
        return
    names = [shortened(name, 12) for name in classes]
    axes.set_xticks(range(len(names)), names, rotation=0 if len(names) < 5 else 90)
    axes.set_yticks(range(len(names)), names)
    for row, column in np.ndindex(*counts.shape):
        colour = "white" if fractions[row, column] > 0.5 else "#111111"
        text = f"{counts[row, column]:,}"
        if len(classes) <= MAX_PERCENTAGES and counts[row, column]:
            text += f"\n{fractions[row, column]:.0%}"
        axes.annotate(text, (column, row), ha="center", va="center", color=colour, fontsize=8)


def roc(figure: Figure, tests: Mapping[str, SplitPredictions]) -> None:
    """Draws each phase's ROC curve; see `roc_curve`."""
    axes = figure.subplots()
    for index, (name, predictions) in enumerate(tests.items()):
        colour, style = COLOURS[index % len(COLOURS)], LINE_STYLES[index % len(LINE_STYLES)]
        axes.plot(GRID, roc_curve(predictions), color=colour, linestyle=style, label=shortened(name))
    axes.plot([0, 1], [0, 1], color=GREY, linestyle="--", linewidth=1)
    axes.set_xlabel("false positive rate")
    axes.set_ylabel("true positive rate")
    axes.set_aspect("equal")
    axes.legend(loc="lower right")


def roc_curve(predictions: SplitPredictions) -> NDArray[np.float64]:
    """Computes the true positive rates at the false positive rates of GRID.

    For two classes it is the curve of the second class, else the mean of all classes, each against the rest;
    NaN where no class has both images and others, or where training diverged and probabilities are NaN.
    """
    from sklearn import metrics

    count = predictions.probabilities.shape[1]
    curves = []
    for label in [1] if count == 2 else range(count):
        positive = predictions.labels == label
        scores = predictions.probabilities[:, label]
        if positive.any() and not positive.all() and np.isfinite(scores).all():
            false, true, _ = metrics.roc_curve(positive, scores, drop_intermediate=False)
            curves.append(np.interp(GRID, false, true))
    mean: NDArray[np.float64] = np.mean(curves, 0) if curves else np.full(len(GRID), np.nan)
    return mean


def reliability(figure: Figure, predictions: SplitPredictions) -> None:
    """Draws accuracy over confidence as a line, and how many images have that confidence as bars."""
    axes = figure.subplots()
    bins = calibration_bins(predictions.confidence, predictions.correct)
    left_edges = np.arange(BINS) / BINS
    fractions = bins.counts / bins.counts.sum()
    axes.bar(left_edges, fractions, width=1 / BINS, align="edge", color=GREY, alpha=0.5, label="images")
    axes.plot([0, 1], [0, 1], color=GREY, linestyle="--", linewidth=1)
    filled = bins.counts > 0
    axes.plot(bins.confidence[filled], bins.accuracy[filled], "o-", color=COLOURS[0], label="accuracy", ms=4)
    axes.set_xlabel("confidence")
    axes.set_ylabel("fraction of the images")
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1.02)
    figure.legend(loc="outside upper center", ncols=2)


def confidence(figure: Figure, predictions: SplitPredictions, threshold: float | None) -> None:
    """Draws histograms of the confidence of correct and of wrong predictions."""
    axes = figure.subplots()
    edges = np.linspace(0, 1, 41).tolist()
    finite = np.isfinite(predictions.confidence)
    correct = predictions.correct & finite
    # side by side, not stacked: on a logarithmic axis the upper part of a stack looks small
    for label, mask, colour in (("correct", correct, COLOURS[0]), ("wrong", finite & ~correct, COLOURS[1])):
        values = predictions.confidence[mask]
        axes.hist(values, edges, histtype="step", color=colour, linewidth=1.5, label=label)
    axes.set_yscale("symlog", linthresh=10)
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")  # the scale's own writes formulas
    axes.set_xlabel("confidence")
    axes.set_ylabel("images")
    axes.set_xlim(float(predictions.confidence[finite].min(initial=1)) - 0.02, 1)
    if threshold is not None:
        axes.axvline(threshold, color=INK, linestyle="--", linewidth=1, label="threshold")
    figure.legend(loc="outside upper center", ncols=3)


def reject(
    figure: Figure, curve: RejectCurve, unclassified: Rejected | None, *, independence: float = 1.0
) -> None:
    """Draws accuracy over coverage with Wilson's interval, and marks what the stored threshold accepts.

    Args:
        figure: where to draw.
        curve: the reject curve.
        unclassified: what the stored threshold rejects; None without one.
        independence: how many independent predictions one is worth, less than 1 out of fold.
    """
    axes = figure.subplots()
    # a page shows no more points than this
    shown = np.unique(np.linspace(0, len(curve.accuracy) - 1, MAX_CURVE_POINTS).round().astype(int))
    coverage, accuracy, accepted = (
        values[shown] for values in (curve.coverage, curve.accuracy, curve.accepted)
    )
    low, high = np.transpose(
        [wilson(*point) for point in zip(accuracy, accepted * independence, strict=True)]
    )
    axes.fill_between(coverage, low, high, color=COLOURS[0], alpha=0.2, linewidth=0, label="95% interval")
    axes.plot(coverage, accuracy, color=COLOURS[0], label="accuracy")
    if unclassified is not None and unclassified.accuracy_of_others is not None:
        images = int(curve.accepted[-1])
        point = (images - unclassified.n) / images, unclassified.accuracy_of_others
        axes.plot(*point, "o", color=COLOURS[1], label=f"threshold {unclassified.below:g}")
    # intervals of a few images would leave no room for the rest
    lowest = min(low[-1], accuracy[coverage >= 0.05].min())
    axes.set_ylim(lowest - 0.05 * (1 - lowest), 1 + 0.05 * (1 - lowest))
    axes.set_xlim(0, 1.02)
    axes.set_xlabel("coverage: fraction of the images that are not rejected")
    axes.set_ylabel("accuracy on them")
    figure.legend(loc="outside upper center", ncols=3)


def unlabelled(figure: Figure, counts: Mapping[str, int]) -> None:
    """Draws how many images without a label are predicted as each class, or unclassified."""
    axes = figure.subplots()
    rows = range(len(counts))
    colours = [GREY if name == UNCLASSIFIED else COLOURS[0] for name in counts]
    axes.barh(rows, list(counts.values()), color=colours)
    axes.set_yticks(rows, [shortened(name) for name in counts])
    for row, count in zip(rows, counts.values(), strict=True):
        axes.annotate(f"{count:,}", (count, row), (3, 0), textcoords="offset points", va="center")
    axes.invert_yaxis()
    axes.margins(x=0.15)
    axes.set_xlabel("images without a label")
