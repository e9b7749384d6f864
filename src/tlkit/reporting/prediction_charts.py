"""Charts of predictions: what was taken for what, and what confidence is worth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torchmetrics.functional.classification import binary_roc

from tlkit.evaluation.metrics import BINS
from tlkit.experiment.record import SplitPredictions
from tlkit.inference.predictor import UNCLASSIFIED
from tlkit.reporting.pictures import COLOURS, GREY, INK
from tlkit.reporting.run_charts import shortened

#: With more classes than this a confusion has no numbers and no names.
NUMBERED = 12
#: Lines differ by more than colour.
LINES = ("-", "--", "-.", ":")
#: Pairs of classes that are listed, most often confused first.
CONFUSED = 10
#: Places at which ROC curves are drawn.
GRID: NDArray[np.float64] = np.unique(np.concatenate([np.linspace(0, 0.1, 101), np.linspace(0.1, 1, 181)]))


def confusion(figure: Figure, cells: Sequence[Sequence[int]], classes: Sequence[str]) -> None:
    """How many images of each class (rows) were taken for which (columns)."""
    axes = figure.subplots()
    counts = np.array(cells)
    parts = counts / counts.sum(1, keepdims=True).clip(1)
    axes.imshow(parts, cmap="Blues", vmin=0, vmax=1)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    axes.spines[:].set_visible(False)
    if len(classes) > NUMBERED:
        return
    names = [shortened(name, 12) for name in classes]
    axes.set_xticks(range(len(names)), names, rotation=0 if len(names) < 5 else 90)
    axes.set_yticks(range(len(names)), names)
    for row, column in np.ndindex(*counts.shape):
        colour = "white" if parts[row, column] > 0.5 else "#111111"
        axes.annotate(
            f"{counts[row, column]:,}", (column, row), ha="center", va="center", color=colour, fontsize=8
        )


def confused(cells: Sequence[Sequence[int]], classes: Sequence[str]) -> list[tuple[str, str, int]]:
    """The pairs that are confused most often: the true class, the one it was taken for, how often."""
    counts = np.array(cells)
    np.fill_diagonal(counts, 0)
    order = np.argsort(-counts, axis=None, kind="stable")[:CONFUSED]
    rows, columns = np.unravel_index(order, counts.shape)
    return [
        (classes[row], classes[column], int(counts[row, column]))
        for row, column in zip(rows, columns, strict=True)
        if counts[row, column]
    ]


def roc(figure: Figure, phases: Mapping[str, SplitPredictions]) -> None:
    """Each phase's ROC curve: of the second class for two classes, else the mean over all, each
    against the rest."""
    axes = figure.subplots()
    for place, (name, found) in enumerate(phases.items()):
        colour, style = COLOURS[place % len(COLOURS)], LINES[place % len(LINES)]
        axes.plot(GRID, roc_curve(found), color=colour, linestyle=style, label=shortened(name))
    axes.plot([0, 1], [0, 1], color=GREY, linestyle="--", linewidth=1)
    axes.set_xlabel("false positive rate")
    axes.set_ylabel("true positive rate")
    axes.set_aspect("equal")
    axes.legend(loc="lower right")


def roc_curve(found: SplitPredictions) -> NDArray[np.float64]:
    """True positive rates at the false positive rates of GRID."""
    count = found.probabilities.shape[1]
    curves = []
    for place in [1] if count == 2 else range(count):
        truth = torch.from_numpy((found.labels == place).astype(np.int64))
        if truth.any() and not truth.all():
            scores = torch.from_numpy(found.probabilities[:, place].clip(0, 1))
            false, true, _ = binary_roc(scores, truth)
            curves.append(np.interp(GRID, false.numpy(), true.numpy()))
    mean: NDArray[np.float64] = np.mean(curves, 0) if curves else np.full(len(GRID), np.nan)
    return mean


def reliability(figure: Figure, found: SplitPredictions) -> None:
    """How often the classifier is right (height) when it is this sure; bars show how many images."""
    axes = figure.subplots()
    edges = np.linspace(0, 1, BINS + 1)
    place = np.clip(np.digitize(found.confidence, edges) - 1, 0, BINS - 1)
    counts = np.bincount(place, minlength=BINS)
    right = np.bincount(place, weights=found.right, minlength=BINS)
    sure = np.bincount(place, weights=found.confidence, minlength=BINS)
    some = counts > 0
    axes.bar(
        edges[:-1], counts / counts.sum(), width=1 / BINS, align="edge", color=GREY, alpha=0.5, label="images"
    )
    axes.plot([0, 1], [0, 1], color=GREY, linestyle="--", linewidth=1)
    axes.plot(
        sure[some] / counts[some],
        right[some] / counts[some],
        "o-",
        color=COLOURS[0],
        label="part right",
        ms=4,
    )
    axes.set_xlabel("confidence")
    axes.set_ylabel("part of the images")
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1.02)
    figure.legend(loc="outside upper center", ncols=2)


def confidence(figure: Figure, found: SplitPredictions, threshold: float | None) -> None:
    """How sure the classifier was where it was right, and where it was wrong."""
    axes = figure.subplots()
    edges = np.linspace(0, 1, 41).tolist()
    # side by side, not stacked: on a logarithmic axis what stands on top of something looks small
    for label, part, colour in (("right", found.right, COLOURS[0]), ("wrong", ~found.right, COLOURS[1])):
        axes.hist(found.confidence[part], edges, histtype="step", color=colour, linewidth=1.5, label=label)
    axes.set_yscale("symlog", linthresh=10)
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")  # the scale's own writes formulas
    axes.set_xlabel("confidence")
    axes.set_ylabel("test images")
    axes.set_xlim(float(found.confidence.min()) - 0.02, 1)
    if threshold is not None:
        axes.axvline(threshold, color=INK, linestyle="--", linewidth=1, label="threshold")
    figure.legend(loc="outside upper center", ncols=3)


def unlabelled(figure: Figure, counts: Mapping[str, int]) -> None:
    """How many images without a label were given which class, or none."""
    axes = figure.subplots()
    places = range(len(counts))
    colours = [GREY if name == UNCLASSIFIED else COLOURS[0] for name in counts]
    axes.barh(places, list(counts.values()), color=colours)
    axes.set_yticks(places, [shortened(name) for name in counts])
    for place, count in enumerate(counts.values()):
        axes.annotate(f"{count:,}", (count, place), (3, 0), textcoords="offset points", va="center")
    axes.invert_yaxis()
    axes.margins(x=0.15)
    axes.set_xlabel("images without a label")
