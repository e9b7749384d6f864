"""The comparison of backbones: its chart, and the report's section on it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from tlkit.analysis.choose import Choice, read_choice
from tlkit.errors import ReportError
from tlkit.reporting.pictures import COLOURS, GREY, INK, Album, Picture
from tlkit.reporting.run_charts import shortened
from tlkit.utils.formatting import format_bytes

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class ChoiceSection:
    """The comparison of backbones in a report.

    Attributes:
        choice: the comparison.
        chart: its chart.
    """

    choice: Choice
    chart: Picture


def make_choice_section(folder: Path, album: Album) -> ChoiceSection | None:
    """Makes the section of a run folder's choice.json; returns None if there is none.

    Raises:
        ReportError: choice.json cannot be read.
    """
    choice = read_choice(folder)
    return ChoiceSection(choice, _chart(choice, album, "choice")) if choice else None


def write_choice_chart(choice: Choice, path: Path) -> None:
    """Draws the accuracy of each backbone against what predicting an image costs, as an SVG file.

    Raises:
        ReportError: the file's name does not end with .svg, or it cannot be written.
    """
    if path.suffix != ".svg":
        raise ReportError(f"{path}: the chart is an SVG file: give it a name that ends with .svg")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _chart(choice, Album(path.parent), path.stem)
    except OSError as error:
        raise ReportError(f"{path} cannot be written: {error.strerror or error}") from error


def _chart(choice: Choice, album: Album, name: str) -> Picture:
    alt = "Accuracy and milliseconds per image: " + ", ".join(
        f"{candidate.backbone} {candidate.scores.accuracy:.3f}, {1000 * candidate.seconds:.0f} ms"
        for candidate in choice.candidates
    )
    return album.chart(name, alt, partial(_draw, choice=choice), height=3.6)


def _draw(figure: Figure, choice: Choice) -> None:
    axes = figure.subplots()
    for index, candidate in enumerate(choice.candidates):
        milliseconds, scores = 1000 * candidate.seconds, candidate.scores
        low, high = scores.ci95
        axes.errorbar(
            milliseconds,
            scores.accuracy,
            yerr=[[scores.accuracy - low], [high - scores.accuracy]],
            fmt="o",
            color=COLOURS[0] if index == 0 else GREY,
            capsize=4,
            ms=6,
        )
        axes.annotate(
            f"{shortened(candidate.backbone)}\n{format_bytes(candidate.weight_bytes)}",
            (milliseconds, scores.accuracy),
            (7, 0),
            textcoords="offset points",
            va="center",
            color=INK,
            fontsize=8,
        )
    axes.set_xscale("log")
    axes.margins(x=0.35)
    axes.set_xlabel("milliseconds per image")
    axes.set_ylabel("accuracy out of fold, with 95% interval")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter("{x:g}")
    axes.grid(color=GREY, alpha=0.3)
