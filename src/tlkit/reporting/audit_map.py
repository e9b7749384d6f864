"""The map of an audit: images as dots, similar ones close together, with what was found marked."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING

from tlkit.analysis.audit_file import Audit, MapPoint
from tlkit.reporting.pictures import COLOURS, INK, Album, Picture

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def make_map(audit: Audit, album: Album) -> Picture:
    """Makes the chart of an audit that has a map."""
    everything = sum(audit.classes.values())
    shown = "All images" if len(audit.map) == everything else f"{len(audit.map):,} of {everything:,} images"
    caption = (
        f"{shown}. Those that the network finds similar lie close together; distances between groups mean "
        "nothing. A dot among those of another class is hard to tell from them, or labelled wrongly."
    )
    draw = partial(feature_map, audit=audit)
    return album.chart("map", f"Map of the images: {caption}", draw, width=11.2, height=6.4, caption=caption)


def feature_map(figure: Figure, audit: Audit) -> None:
    """Draws the images in the colours of their classes, and marks probable label errors and outliers."""
    from matplotlib import colormaps

    axes, names = figure.subplots(), list(audit.classes)
    legend = []  # of the artists themselves: matplotlib leaves out names that begin with an underscore
    named = len(names) <= len(COLOURS)
    for index, name in enumerate(names):
        x, y = _columns(point for point in audit.map if point.label == name)
        colour = COLOURS[index] if named else colormaps["turbo"](index / (len(names) - 1))
        dots = axes.scatter(x, y, s=12, color=[colour], alpha=0.7, linewidths=0)
        legend += [(dots, name)] if named else []
    labels = {suspect.image for suspect in audit.labels.suspects}
    if any(point.image in labels for point in audit.map):
        x, y = _columns(point for point in audit.map if point.image in labels)
        crosses = axes.scatter(x, y, s=36, marker="x", color=INK, linewidths=1)
        legend.append((crosses, "label may be wrong"))
    unlike = {item.image for item in audit.unlike}
    if any(point.image in unlike for point in audit.map):
        x, y = _columns(point for point in audit.map if point.image in unlike)
        squares = axes.scatter(x, y, s=36, marker="s", facecolors="none", edgecolors=INK)
        legend.append((squares, "unlike all others"))
    axes.set_axis_off()
    if legend:
        figure.legend(*zip(*legend, strict=True), loc="outside upper center", ncols=4)


def _columns(points: Iterable[MapPoint]) -> tuple[list[float], list[float]]:
    points = list(points)
    return [point.x for point in points], [point.y for point in points]
