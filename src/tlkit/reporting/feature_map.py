"""A map of features: images as dots, similar ones close together, with some of them marked."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from tlkit.analysis.audit_file import MapPoint
from tlkit.reporting.pictures import COLOURS, INK, Album, Picture

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CROSS: Mapping[str, Any] = {"marker": "x", "color": INK, "linewidths": 1}
SQUARE: Mapping[str, Any] = {"marker": "s", "facecolors": "none", "edgecolors": INK}


@dataclass(frozen=True)
class Mark:
    """What marks some of the images on a map.

    Attributes:
        text: its text in the legend.
        images: ids of the images that it marks; others than those on the map do not matter.
        style: how it is drawn: `CROSS` or `SQUARE`.
    """

    text: str
    images: Collection[str]
    style: Mapping[str, Any] = field(default_factory=lambda: CROSS)


def make_map(
    points: Sequence[MapPoint], classes: Sequence[str], marks: Sequence[Mark], count: int, album: Album
) -> Picture:
    """Makes the chart.

    Args:
        points: the images that are shown.
        classes: names of all classes.
        marks: marks some images.
        count: the number of images that the map stands for.
        album: takes the chart.
    """
    shown = "All images" if len(points) == count else f"{len(points):,} of {count:,} images"
    caption = (
        f"{shown}. Those that the network finds similar lie close together; distances between groups mean "
        "nothing. A dot among those of another class is hard to tell from them, or labelled wrongly."
    )
    draw = partial(draw_map, points=points, classes=classes, marks=marks)
    return album.chart("map", f"Map of the images: {caption}", draw, width=11.2, height=6.4, caption=caption)


def draw_map(
    figure: Figure, points: Sequence[MapPoint], classes: Sequence[str], marks: Sequence[Mark]
) -> None:
    """Draws the images in the colours of their classes, and the marks."""
    from matplotlib import colormaps

    axes = figure.subplots()
    legend = []  # of the artists themselves: matplotlib leaves out names that begin with an underscore
    named = len(classes) <= len(COLOURS)
    for index, name in enumerate(classes):
        x, y = _columns(point for point in points if point.label == name)
        colour = COLOURS[index] if named else colormaps["turbo"](index / (len(classes) - 1))
        dots = axes.scatter(x, y, s=12, color=[colour], alpha=0.7, linewidths=0)
        legend += [(dots, name)] if named else []
    for mark in marks:
        x, y = _columns(point for point in points if point.image in mark.images)
        if x:
            legend.append((axes.scatter(x, y, s=36, **mark.style), mark.text))
    axes.set_axis_off()
    if legend:
        figure.legend(*zip(*legend, strict=True), loc="outside upper center", ncols=4)


def _columns(points: Iterable[MapPoint]) -> tuple[list[float], list[float]]:
    points = list(points)
    return [point.x for point in points], [point.y for point in points]
