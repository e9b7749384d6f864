"""`tlkit curve`: how many more images are worth taking."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tlkit.cli.console import json_line, say, table
from tlkit.cli.options import BackboneOption, DeviceOption, TargetArgument, WeightsOption, check_target

if TYPE_CHECKING:
    from tlkit.analysis.curve import LearningCurve


def curve(
    target: TargetArgument,
    goal: Annotated[
        float | None,
        typer.Option(
            min=0, max=1, help="Forecast when this accuracy is reached; the recipe's goal unless given."
        ),
    ] = None,
    backbone: BackboneOption = None,
    weights: WeightsOption = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="The folder to write curve.json and curve.svg to; the run folder, or curve, unless given."
        ),
    ] = None,
    json_: Annotated[bool, typer.Option("--json", help="One JSON object, as in curve.json.")] = False,
    device: DeviceOption = None,
) -> None:
    """Measure accuracy against the number of images, and forecast what more images will bring."""
    check_target(target)
    from tlkit.analysis.curve import curve as measure
    from tlkit.cli.observer import ConsoleObserver
    from tlkit.reporting.curve_section import write_curve

    result = measure(
        target, goal=goal, backbone=backbone, weights=weights, device=device, observer=ConsoleObserver()
    )
    is_run = (target / "run.json").is_file()
    file = write_curve(result, out or (target if is_run else Path("curve")))
    if json_:
        json_line(result.model_dump(mode="json", by_alias=True))
        return
    print_curve(result)
    say(f"{file}, with its chart {file.with_suffix('.svg').name} beside it")


def print_curve(result: LearningCurve) -> None:
    """Prints the points that were measured and those that are expected, and what they mean."""
    classes = sum(count > 0 for count in result.classes.values())
    rows = [
        (f"{point.images:,}", f"{point.images / classes:,.0f}", point.describe(), str(result.draws))
        for point in result.measured
    ]
    names = ("expected with all", *(f"expected with {times} times" for times in (2, 4)))
    rows += [
        (f"{point.images:,}", f"{point.images / classes:,.0f}", point.describe(), name)
        for point, name in zip(result.expected, names, strict=True)
    ]
    table(None, ("images>", "per class>", "accuracy (90% interval)", "subsets"), rows)
    for sentence in result.sentences():
        say(sentence, hanging=2)
