"""The learning curve: its chart and its file, and the report's section on it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from tlkit.analysis.curve import FILE, LearningCurve, read_curve
from tlkit.errors import ReportError
from tlkit.reporting.pictures import COLOURS, GREY, INK, Album, Picture
from tlkit.utils.json_files import write_json

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class CurveSection:
    """The learning curve in a report.

    Attributes:
        curve: the curve.
        chart: its chart.
    """

    curve: LearningCurve
    chart: Picture


def make_curve_section(folder: Path, album: Album) -> CurveSection | None:
    """Makes the section of a run folder's curve.json; returns None if there is none.

    Raises:
        ReportError: curve.json cannot be read.
    """
    curve = read_curve(folder)
    return CurveSection(curve, _chart(curve, album)) if curve else None


def write_curve(curve: LearningCurve, folder: Path) -> Path:
    """Writes curve.json and curve.svg into a folder, which is made; returns the JSON file.

    Raises:
        ReportError: they cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / FILE, curve)
        _chart(curve, Album(folder))
    except OSError as error:
        raise ReportError(f"{folder} cannot be written to: {error.strerror or error}") from error
    return folder / FILE


def _chart(curve: LearningCurve, album: Album) -> Picture:
    return album.chart(
        "curve",
        f"Accuracy against the number of images. {' '.join(curve.sentences())}",
        partial(draw_curve, curve=curve),
        width=5.2,
        height=3.2,
    )


def draw_curve(figure: Figure, curve: LearningCurve) -> None:
    """Draws the measured accuracies, and the power law with its 90% interval, dashed beyond the images."""
    axes = figure.subplots()
    images = [point.images for point in curve.line]
    lows, highs = ([getattr(point, end) for point in curve.line] for end in ("low", "high"))
    axes.fill_between(images, lows, highs, color=COLOURS[0], alpha=0.2, linewidth=0, label="90% interval")
    split = sum(count <= curve.images for count in images)
    accuracies = [point.accuracy for point in curve.line]
    axes.plot(images[:split], accuracies[:split], color=COLOURS[0], label="power law")
    axes.plot(images[split - 1 :], accuracies[split - 1 :], "--", color=COLOURS[0], label="expected")
    axes.plot(
        [point.images for point in curve.measured],
        [point.accuracy for point in curve.measured],
        "o",
        color=COLOURS[1],
        ms=4,
        label="measured",
    )
    axes.axvline(curve.images, color=GREY, linestyle=":", linewidth=1)
    if curve.goal is not None:
        axes.axhline(curve.goal.accuracy, color=GREY, linestyle="--", linewidth=1)
        start = (images[0], curve.goal.accuracy)
        axes.annotate(f"goal {curve.goal.accuracy:g}", start, (0, 3), textcoords="offset points", color=INK)
    axes.set_xscale("log", base=2)
    ticks = [point.images for point in (*curve.measured[::2], *curve.expected)]
    axes.set_xticks(ticks, [f"{count:,}" for count in ticks], rotation=45)
    axes.minorticks_off()
    axes.set_xlabel("training images (dotted: at hand)")
    axes.set_ylabel("accuracy")
    figure.legend(loc="outside upper center", ncols=4)
