"""Charts of a run as a whole: accuracies, data, networks, epochs, seconds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from tlkit.experiment.record import ImageRow, PhaseRecord
from tlkit.reporting.pictures import COLOURS, GREY, INK

LEARNS, PARTLY, FROZEN = COLOURS[1], COLOURS[3], "#b8c4d0"
SPLITS = ("train", "val", "test", "unlabelled")
#: With more classes than this a chart shows totals.
MANY = len(COLOURS)
#: More blocks than this are drawn without their names.
NAMED_BLOCKS = 16
SHORT = 18


def accuracies(figure: Figure, results: Sequence[Mapping[str, Any]], goal: float | None) -> None:
    """Each result's accuracy on the test images with its 95% interval, and the goal."""
    axes = figure.subplots()
    places = range(len(results))
    for place, result in enumerate(results):
        test = result["test"]
        low, high = test["ci95"]
        value = test["accuracy"]
        axes.errorbar(
            value, place, xerr=[[value - low], [high - value]], fmt="o", color=COLOURS[0], capsize=4, ms=5
        )
        axes.annotate(
            f"{value:.3f}", (value, place), (0, 6), textcoords="offset points", ha="center", color=INK
        )
    if goal is not None:
        axes.axvline(goal, color=GREY, linestyle="--", linewidth=1)
        axes.annotate(f"goal {goal:.2f}", (goal, -0.85), ha="center", color=INK, fontsize=8)
    axes.set_yticks(places, [shortened(result["name"]) for result in results])
    axes.set_ylim(len(results) - 0.4, -1.2)
    axes.set_xlabel("accuracy on the test images, with 95% interval")
    axes.grid(axis="x", color=GREY, alpha=0.3)


def split(figure: Figure, images: Sequence[ImageRow], classes: Sequence[str]) -> None:
    """How many images of which class train, validate, test, or have no label."""
    axes = figure.subplots()
    counts = Counter((row.split, row.label) for row in images)
    parts = [name for name in SPLITS if any(key[0] == name for key in counts)]
    left = np.zeros(len(parts))
    groups = list(classes) if len(classes) <= MANY else []
    bars = []
    for place, label in enumerate(groups):
        values = np.array([counts[part, label] for part in parts])
        bars.append(axes.barh(parts, values, left=left, color=COLOURS[place])[0])
        left += values
    others = np.array([sum(n for key, n in counts.items() if key[0] == part) for part in parts]) - left
    if others.any():
        bars.append(axes.barh(parts, others, left=left, color=GREY)[0])
    for place, total in enumerate(left + others):
        axes.annotate(f"{total:,.0f}", (total, place), (3, 0), textcoords="offset points", va="center")
    axes.invert_yaxis()
    axes.margins(x=0.15)
    axes.set_xlabel("images")
    if groups:
        names = [*map(shortened, groups), *(["no label"] if others.any() else [])]
        figure.legend(bars, names, loc="outside upper center", ncols=4)


def sizes(figure: Figure, images: Sequence[ImageRow]) -> None:
    """Widths and heights; a larger dot stands for more images of that size."""
    axes = figure.subplots()
    found, counts = np.unique([(row.width, row.height) for row in images], axis=0, return_counts=True)
    if len(found) > 500:
        axes.hist2d(found[:, 0], found[:, 1], bins=40, weights=counts, cmin=1, cmap="Blues")
    else:
        area = 12 + 200 * counts / counts.max()
        axes.scatter(found[:, 0], found[:, 1], s=area, alpha=0.5, color=COLOURS[0], linewidths=0)
    axes.set_xlabel("width in pixels")
    axes.set_ylabel("height in pixels")
    axes.set_xlim(0, found[:, 0].max() * 1.1)
    axes.set_ylim(0, found[:, 1].max() * 1.1)


def networks(figure: Figure, phases: Sequence[Mapping[str, Any]]) -> None:
    """Each phase's network from input to output, its frozen and its learning blocks told apart."""
    axes = figure.subplots()
    colours = {"learns": LEARNS, "partly": PARTLY, "frozen": FROZEN}
    for column, phase in enumerate(phases):
        blocks = [(block["name"], block["state"], block["parameters"]) for block in phase["blocks"]]
        state = "learns" if phase["learning_head"] else "frozen"
        blocks.append((f"head: {phase['head']}", state, phase["learning_head"]))
        height = 1 / len(blocks)
        for row, (name, state, count) in enumerate(blocks):
            box = (column + 0.04, row * height), 0.92, height * 0.9
            frozen = state == "frozen"
            axes.add_patch(
                Rectangle(*box, facecolor=colours[state], alpha=0.85, hatch="///" if frozen else None, ec="w")
            )
            if len(blocks) <= NAMED_BLOCKS:
                text = f"{shortened(name)}\n{magnitude(count)}" if count else shortened(name)
                middle = (column + 0.5, (row + 0.45) * height)
                axes.annotate(text, middle, ha="center", va="center", fontsize=7, color="#111111")
    axes.set_xlim(0, len(phases))
    axes.set_ylim(1, 0)
    axes.set_xticks([place + 0.5 for place in range(len(phases))], [shortened(p["name"]) for p in phases])
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    axes.set_ylabel("output ← input")
    there = {block["state"] for phase in phases for block in phase["blocks"]} | {"frozen", "learns"}
    shown = [state for state in ("frozen", "partly", "learns") if state in there]
    handles = [
        Rectangle((0, 0), 1, 1, facecolor=colours[state], hatch="///" if state == "frozen" else None, ec="w")
        for state in shown
    ]
    names = {"frozen": "frozen", "partly": "learns in part", "learns": "learns"}
    figure.legend(handles, [names[state] for state in shown], loc="outside lower center", ncols=3)


def curves(figure: Figure, phase: PhaseRecord) -> None:
    """Loss and validation accuracy per epoch, and the epoch whose weights were kept."""
    above, below = figure.subplots(2, sharex=True)
    epochs = [row["epoch"] for row in phase.history]
    marker = "." if len(epochs) < 30 else None
    lines = (("learning", "train_loss", COLOURS[1]), ("validation", "val_loss", COLOURS[0]))
    for label, key, colour in lines:
        above.plot(epochs, [row[key] for row in phase.history], label=label, color=colour, marker=marker)
    above.set_ylabel("loss")
    below.plot(epochs, [row["val_accuracy"] for row in phase.history], color=COLOURS[0], marker=marker)
    below.set_ylabel("accuracy on\nvalidation")
    below.set_xlabel("epoch")
    below.xaxis.get_major_locator().set_params(integer=True)
    if phase.result:
        for axes in (above, below):
            axes.axvline(phase.result["best_epoch"], color=GREY, linestyle="--", linewidth=1, label="kept")
    _legend_above(figure, above)


def seconds(figure: Figure, results: Sequence[Mapping[str, Any]]) -> None:
    """Where each phase's time went."""
    axes = figure.subplots()
    places = range(len(results))
    left = np.zeros(len(results))
    for place, part in enumerate(("features", "training", "evaluation")):
        values = np.array([result["seconds"][part] for result in results])
        axes.barh(places, values, left=left, label=part, color=COLOURS[place])
        left += values
    axes.set_yticks(places, [shortened(result["name"]) for result in results])
    axes.invert_yaxis()
    axes.set_xlabel("seconds")
    figure.legend(loc="outside upper center", ncols=3)


def overlaid(figure: Figure, phases: Mapping[str, PhaseRecord]) -> None:
    """Validation accuracy per epoch of several runs' phases, one over the other."""
    axes = figure.subplots()
    for place, (name, phase) in enumerate(phases.items()):
        rows = phase.history
        axes.plot(
            [row["epoch"] for row in rows],
            [row["val_accuracy"] for row in rows],
            label=shortened(name, 40),
            color=COLOURS[place % len(COLOURS)],
            linestyle=("-", "--", ":", "-.")[place // len(COLOURS) % 4],
        )
    axes.set_xlabel("epoch")
    axes.set_ylabel("accuracy on validation")
    figure.legend(loc="outside upper center", ncols=1 if len(phases) < 4 else 2)


def shortened(name: str, length: int = SHORT) -> str:
    """A name that fits into a chart: its beginning and its end, which tells it from others."""
    kept = length // 2
    return name if len(name) <= length else f"{name[: length - 1 - kept]}…{name[-kept:]}"


def magnitude(count: int) -> str:
    """A large number in three digits: 7,635,264 is 7.64 M."""
    for size, letter in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if count >= size:
            return f"{count / size:.3g} {letter}"
    return str(count)


def _legend_above(figure: Figure, axes: Axes) -> None:
    figure.legend(*axes.get_legend_handles_labels(), loc="outside upper center", ncols=3)
