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

#: The key of the learning rate.
LEARNING_RATE = "training.optimizer.lr"

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class TuningSection:
    """The search for settings in a report.

    Attributes:
        tuning: the search.
        chart: its chart.
        range_test: the chart of the learning-rate range test, or None if the best head fits itself.
    """

    tuning: Tuning
    chart: Picture
    range_test: Picture | None


def make_tuning_section(folder: Path, album: Album) -> TuningSection | None:
    """Makes the section of a run folder's tuning.json; returns None if there is none.

    Raises:
        ReportError: tuning.json cannot be read.
    """
    tuning = read_tuning(folder)
    return TuningSection(tuning, _chart(tuning, album), _range_chart(tuning, album)) if tuning else None


def write_charts(tuning: Tuning) -> None:
    """Writes tuning.svg and learning-rates.svg into the search's folder.

    Raises:
        ReportError: they cannot be written.
    """
    album = Album(Path(tuning.folder))
    try:
        _chart(tuning, album)
        _range_chart(tuning, album)
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


def _range_chart(tuning: Tuning, album: Album) -> Picture | None:
    if tuning.range_test is None:
        return None
    return album.chart(
        "learning-rates",
        "The training loss, smoothed, while the learning rate grows with every step.",
        partial(draw_range_test, tuning=tuning),
        caption="Learning-rate range test with the best trial's settings: good rates lie where the loss "
        "falls steeply, well before it rises.",
    )


def draw_range_test(figure: Figure, tuning: Tuning) -> None:
    """Draws the loss against the learning rate, and where the best trial's rate lies if it was chosen."""
    assert tuning.range_test is not None
    axes = figure.subplots()
    axes.plot(tuning.range_test.rates, tuning.range_test.losses, color=COLOURS[0])
    axes.set_xscale("log")
    axes.set_xlabel("learning rate")
    axes.set_ylabel("training loss")
    chosen = tuning.best_trial.settings.get(LEARNING_RATE)
    if chosen is not None:
        axes.axvline(float(chosen), color=COLOURS[1], linestyle="--", label="of the best trial")
        figure.legend(loc="outside upper center")


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
