"""Charts of a run as a whole: accuracies, images, networks, epochs, durations."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from tlkit.evaluation.metrics import Scores
from tlkit.evaluation.multilabel import Estimate
from tlkit.experiment.plan import BlockPlan, PhasePlan
from tlkit.experiment.record import ImageRow
from tlkit.experiment.results import PhaseSeconds
from tlkit.reporting.pictures import COLOURS, GREY, INK
from tlkit.training.history import EpochMetrics

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

SPLITS = ("train", "val", "test", "unlabelled")
#: Colours of blocks by their state.
STATE_COLOURS = {"frozen": "#b8c4d0", "partly": COLOURS[3], "trainable": COLOURS[1]}
STATE_NAMES = {"frozen": "frozen", "partly": "partly trainable", "trainable": "trainable"}
#: With more classes than this a chart shows totals.
MAX_CLASSES = len(COLOURS)
#: More blocks than this are drawn without their names.
MAX_NAMED_BLOCKS = 16
#: More sizes than this are drawn as a histogram.
MAX_SIZES = 500
#: Histories of more epochs than this are drawn without a marker per epoch.
MAX_MARKED_EPOCHS = 30
#: Longest name in a chart, in characters.
NAME_LENGTH = 18


def accuracies(
    figure: Figure, tests: Mapping[str, Scores], goal: float | None, majority: float | None = None
) -> None:
    """Draws each phase's or run's accuracy on the test images with its 95% interval, and the goal.

    The accuracy of always predicting the majority class is drawn where an interval comes near it.
    """
    axes = figure.subplots()
    _estimates(axes, {name: (test.accuracy, test.ci95) for name, test in tests.items()}, goal)
    if majority is not None and majority >= axes.get_xlim()[0]:
        axes.axvline(majority, color=GREY, linestyle=":", linewidth=1)
        text = f"majority class {majority:.2f}"
        axes.annotate(text, (majority, len(tests) - 0.5), ha="center", color=INK, fontsize=8)
    axes.set_xlabel("accuracy, with 95% interval")


def mean_average_precisions(figure: Figure, estimates: Mapping[str, Estimate], goal: float | None) -> None:
    """Draws each phase's mean average precision with its 95% interval, and the goal."""
    axes = figure.subplots()
    _estimates(axes, {name: (estimate.value, estimate.ci95) for name, estimate in estimates.items()}, goal)
    axes.set_xlabel("mean average precision, with 95% interval")


def _estimates(
    axes: Axes, estimates: Mapping[str, tuple[float, tuple[float, float]]], goal: float | None
) -> None:
    """Draws values with their intervals, a row for each, and the goal."""
    for row, (value, (low, high)) in enumerate(estimates.values()):
        axes.errorbar(
            value, row, xerr=[[value - low], [high - value]], fmt="o", color=COLOURS[0], capsize=4, ms=5
        )
        axes.annotate(
            f"{value:.3f}", (value, row), (0, 6), textcoords="offset points", ha="center", color=INK
        )
    if goal is not None:
        axes.axvline(goal, color=GREY, linestyle="--", linewidth=1)
        axes.annotate(f"goal {goal:.2f}", (goal, -0.85), ha="center", color=INK, fontsize=8)
    axes.set_yticks(range(len(estimates)), [shortened(name) for name in estimates])
    axes.set_ylim(len(estimates) - 0.4, -1.2)
    axes.grid(axis="x", color=GREY, alpha=0.3)


def splits(figure: Figure, images: Sequence[ImageRow], classes: Sequence[str]) -> None:
    """Draws the number of images per split and class, and of those without a label."""
    axes = figure.subplots()
    counts = Counter((image.split, image.label) for image in images)
    names = [name for name in SPLITS if any(split == name for split, _ in counts)]
    left = np.zeros(len(names))
    labels = list(classes) if len(classes) <= MAX_CLASSES else []
    bars = []
    for label, colour in zip(labels, COLOURS, strict=False):
        values = np.array([counts[name, label] for name in names])
        bars.append(axes.barh(names, values, left=left, color=colour)[0])
        left += values
    totals = np.array([sum(count for (split, _), count in counts.items() if split == name) for name in names])
    others = totals - left
    if others.any():
        bars.append(axes.barh(names, others, left=left, color=GREY)[0])
    for row, total in enumerate(totals):
        axes.annotate(f"{total:,.0f}", (total, row), (3, 0), textcoords="offset points", va="center")
    axes.invert_yaxis()
    axes.margins(x=0.15)
    axes.set_xlabel("images")
    if labels:
        legend = [*map(shortened, labels), *(["no label"] if others.any() else [])]
        figure.legend(bars, legend, loc="outside upper center", ncols=4)


def sizes(figure: Figure, images: Sequence[ImageRow]) -> None:
    """Draws widths and heights; a larger dot stands for more images of that size."""
    axes = figure.subplots()
    unique, counts = np.unique([(image.width, image.height) for image in images], axis=0, return_counts=True)
    widths, heights = unique.T
    if len(unique) > MAX_SIZES:
        axes.hist2d(widths, heights, bins=40, weights=counts, cmin=1, cmap="Blues")
    else:
        area = 12 + 200 * counts / counts.max()
        axes.scatter(widths, heights, s=area, alpha=0.5, color=COLOURS[0], linewidths=0)
    axes.set_xlabel("width in pixels")
    axes.set_ylabel("height in pixels")
    axes.set_xlim(0, widths.max() * 1.1)
    axes.set_ylim(0, heights.max() * 1.1)


def networks(figure: Figure, phases: Sequence[PhasePlan]) -> None:
    """Draws each phase's network from input to output, coloured by which blocks are trainable."""
    axes = figure.subplots()
    for column, phase in enumerate(phases):
        _network(axes, column, phase)
    axes.set_xlim(0, len(phases))
    axes.set_ylim(1, 0)
    axes.set_xticks(np.arange(len(phases)) + 0.5, [shortened(phase.name) for phase in phases])
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    axes.set_ylabel("output ← input")
    drawn = {block.state for phase in phases for block in phase.blocks} | {"frozen", "trainable"}
    states = [state for state in STATE_COLOURS if state in drawn]
    handles = [_box((0, 0), 1, 1, state) for state in states]
    figure.legend(handles, [STATE_NAMES[state] for state in states], loc="outside lower center", ncols=3)


def _network(axes: Axes, column: int, phase: PhasePlan) -> None:
    """Draws one phase's blocks, the head last, from top to bottom."""
    head = BlockPlan(
        name=f"head: {phase.head}",
        state="trainable" if phase.trainable_head else "frozen",
        parameters=phase.trainable_head,
    )
    blocks = [*phase.blocks, head]
    height = 1 / len(blocks)
    for row, block in enumerate(blocks):
        box = _box((column + 0.04, row * height), 0.92, height * 0.9, block.state)
        box.set_alpha(0.85)
        axes.add_patch(box)
        if len(blocks) <= MAX_NAMED_BLOCKS:
            text = shortened(block.name)
            if block.parameters:
                text += f"\n{magnitude(block.parameters)}"
            middle = (column + 0.5, (row + 0.45) * height)
            axes.annotate(text, middle, ha="center", va="center", fontsize=7, color="#111111")


def _box(corner: tuple[float, float], width: float, height: float, state: str) -> Rectangle:
    from matplotlib.patches import Rectangle

    hatch = "///" if state == "frozen" else None
    return Rectangle(corner, width, height, facecolor=STATE_COLOURS[state], hatch=hatch, ec="w")


def losses(figure: Figure, history: Sequence[EpochMetrics], best_epoch: int | None) -> None:
    """Draws the loss per epoch, and marks the epoch whose weights were kept."""
    axes, epochs = figure.subplots(), [metrics.epoch for metrics in history]
    marker = "." if len(epochs) < MAX_MARKED_EPOCHS else None
    train_loss = [metrics.train_loss for metrics in history]
    val_loss = [_or_nan(metrics.val_loss) for metrics in history]
    axes.plot(epochs, train_loss, label="training", color=COLOURS[1], marker=marker)
    axes.plot(epochs, val_loss, label="validation", color=COLOURS[0], marker=marker)
    axes.set_ylabel("loss")
    _mark_epoch(figure, axes, best_epoch)


def epoch_scores(figure: Figure, history: Sequence[EpochMetrics], best_epoch: int | None) -> None:
    """Draws training and validation accuracy per epoch, and marks the epoch whose weights were kept.

    With several labels per image, it draws mean average precision on validation.
    """
    axes, epochs = figure.subplots(), [metrics.epoch for metrics in history]
    marker = "." if len(epochs) < MAX_MARKED_EPOCHS else None
    several = any(metrics.val_mean_average_precision is not None for metrics in history)
    scores = [metrics.val_mean_average_precision if several else metrics.val_accuracy for metrics in history]
    if any(metrics.train_accuracy is not None for metrics in history):
        accuracy = [_or_nan(metrics.train_accuracy) for metrics in history]
        axes.plot(epochs, accuracy, label="training", color=COLOURS[1], marker=marker)
    axes.plot(epochs, [*map(_or_nan, scores)], label="validation", color=COLOURS[0], marker=marker)
    axes.set_ylabel("mean average precision" if several else "accuracy")
    _mark_epoch(figure, axes, best_epoch)


def _mark_epoch(figure: Figure, axes: Axes, best_epoch: int | None) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if best_epoch is not None:
        axes.axvline(best_epoch, color=GREY, linestyle="--", linewidth=1, label="best epoch")
    figure.legend(loc="outside upper center", ncols=3)


def seconds(figure: Figure, durations: Mapping[str, PhaseSeconds]) -> None:
    """Draws where each phase's time went."""
    axes = figure.subplots()
    columns = range(len(durations))
    bottom = np.zeros(len(durations))
    parts = {
        "features": [duration.features for duration in durations.values()],
        "training": [duration.training for duration in durations.values()],
        "evaluation": [duration.evaluation for duration in durations.values()],
    }
    for (name, values), colour in zip(parts.items(), COLOURS, strict=False):
        axes.bar(columns, values, width=0.6, bottom=bottom, label=name, color=colour)
        bottom += values
    axes.set_xticks(columns, [shortened(name) for name in durations])
    axes.set_xlim(-0.5, len(durations) - 0.5)
    axes.set_ylabel("seconds")
    figure.legend(loc="outside lower center", ncols=3)


def overlaid(figure: Figure, histories: Mapping[str, Sequence[EpochMetrics]]) -> None:
    """Draws the validation accuracy per epoch of several runs in one chart."""
    axes = figure.subplots()
    for index, (name, history) in enumerate(histories.items()):
        axes.plot(
            [metrics.epoch for metrics in history],
            [_or_nan(metrics.val_accuracy) for metrics in history],
            label=shortened(name, 40),
            color=COLOURS[index % len(COLOURS)],
            linestyle=("-", "--", ":", "-.")[index // len(COLOURS) % 4],
        )
    axes.set_xlabel("epoch")
    axes.set_ylabel("accuracy on validation")
    figure.legend(loc="outside upper center", ncols=1 if len(histories) < 4 else 2)


def _or_nan(score: float | None) -> float:
    """Returns a score as matplotlib draws it: one that is missing leaves a gap."""
    return math.nan if score is None else score


def shortened(name: str, length: int = NAME_LENGTH) -> str:
    """Shortens a name to its beginning and its end, which distinguishes it from others."""
    end = length // 2
    return name if len(name) <= length else f"{name[: length - 1 - end]}…{name[-end:]}"


def magnitude(count: int) -> str:
    """Formats a large number in three digits: 7,635,264 is 7.64 M."""
    for size, letter in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if count >= size:
            return f"{count / size:.3g} {letter}"
    return str(count)
