"""The search for settings: its chart, and the report's section on it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tlkit.analysis.tune import Tuning, read_tuning
from tlkit.errors import ReportError
from tlkit.reporting.pictures import COLOURS, Album, Picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class TuningSection:
    """The search for settings in a report.

    Attributes:
        tuning: the search.
        chart: its chart.
    """

    tuning: Tuning
    chart: Picture


def make_tuning_section(folder: Path, album: Album) -> TuningSection | None:
    """Makes the section of a run folder's tuning.json; returns None if there is none.

    Raises:
        ReportError: tuning.json cannot be read.
    """
    tuning = read_tuning(folder)
    return TuningSection(tuning, _chart(tuning, album)) if tuning else None


def write_chart(tuning: Tuning) -> None:
    """Writes tuning.svg into the search's folder.

    Raises:
        ReportError: it cannot be written.
    """
    try:
        _chart(tuning, Album(Path(tuning.folder)))
    except OSError as error:
        raise ReportError(f"{tuning.folder} cannot be written to: {error.strerror or error}") from error


def _chart(tuning: Tuning, album: Album) -> Picture:
    return album.chart(
        "tuning",
        f"Accuracy out of fold of every trial. {' '.join(tuning.sentences())}",
        partial(draw_tuning, tuning=tuning),
        width=7.0,
        height=0.5 + 2.2 * -(-(1 + len(tuning.keys)) // 2),
    )


def draw_tuning(figure: Figure, tuning: Tuning) -> None:
    """Draws the trials' accuracies in their order with the best so far, and against each key."""
    grid = figure.subplots(-(-(1 + len(tuning.keys)) // 2), 2, sharey=True, squeeze=False)
    axes, *others = grid.flat
    accuracies = [trial.accuracy for trial in tuning.trials]
    numbers = [trial.number for trial in tuning.trials]
    axes.plot(numbers, accuracies, "o", color=COLOURS[0], ms=3, label="trial, out of fold")
    axes.plot(numbers, np.maximum.accumulate(accuracies), color=COLOURS[0], label="best so far")
    axes.axhline(tuning.accuracy, color=COLOURS[1], linestyle="--", label="to expect of the best")
    axes.set_xlabel("trial")
    for key, axes in zip(tuning.keys, others, strict=False):
        _draw_key(axes, tuning, key)
    for axes in others[len(tuning.keys) :]:
        axes.axis("off")
    for axes in grid[:, 0]:
        axes.set_ylabel("accuracy")
    figure.legend(loc="outside upper center", ncols=3)


def _draw_key(axes: Axes, tuning: Tuning, key: str) -> None:
    trials = [trial for trial in tuning.trials if key in trial.settings]
    values = [trial.settings[key] for trial in trials]
    numbers = [float(value) for value in values if not isinstance(value, str | bool)]
    if len(numbers) < len(values):
        axes.plot([str(value) for value in values], [trial.accuracy for trial in trials], "o", ms=3)
    else:
        axes.plot(numbers, [trial.accuracy for trial in trials], "o", ms=3)
        if key in tuning.logarithmic:
            axes.set_xscale("log")
    axes.axhline(tuning.accuracy, color=COLOURS[1], linestyle="--")
    axes.set_xlabel(key)
