"""`tlkit choose`: which backbone suits a folder of images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tlkit.cli.console import say, table
from tlkit.cli.options import DeviceOption, TargetArgument, check_target
from tlkit.utils.formatting import format_bytes, format_p_value, plural

if TYPE_CHECKING:
    from tlkit.analysis.choose import Candidate, Choice

COLUMNS = ("backbone", "accuracy>", "95% interval", "against the best", "ms an image>", "weights>", "LogME>")


def choose(
    target: TargetArgument,
    backbones: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[BACKBONE...]",
            help="Any backbone, or local-dir:PATH; fit's default and those at hand unless given.",
        ),
    ] = None,
    chart: Annotated[
        Path | None, typer.Option(metavar="FILE.svg", help="Draw accuracy against cost.")
    ] = None,
    device: DeviceOption = None,
) -> None:
    """Compare backbones on labelled images by cross-validated probes, and say which one to take."""
    check_target(target)
    from tlkit.analysis.choose import choose as choose_backbone
    from tlkit.cli.observer import ConsoleObserver
    from tlkit.reporting.choice_section import write_choice_chart

    choice = choose_backbone(target, backbones=backbones or (), device=device, observer=ConsoleObserver())
    print_choice(choice)
    if chart is not None:
        write_choice_chart(choice, chart)
        say(str(chart))


def print_choice(choice: Choice) -> None:
    """Prints a table of backbones, and which one is chosen."""
    columns = list(COLUMNS)
    if choice.measure == "balanced_accuracy":
        columns[2:2] = ["balanced>"]
    title = f"Probes on {plural(choice.images, 'image')} of {choice.name}, out of fold"
    table(title, columns, [_row(candidate, choice) for candidate in choice.candidates])
    for image, reason in choice.rejected:
        say(f"{image} cannot be read: {reason}", stderr=True)
    say(choice.describe(), hanging=2)


def _row(candidate: Candidate, choice: Choice) -> list[str]:
    scores = candidate.scores
    low, high = scores.ci95
    balanced = [f"{scores.balanced_accuracy:.3f}"] if choice.measure == "balanced_accuracy" else []
    against = "best"
    if candidate.test is not None and candidate.p is not None:
        against = f"{candidate.test.lost - candidate.test.gained:+,} correct, {format_p_value(candidate.p)}"
    return [
        candidate.backbone,
        f"{scores.accuracy:.3f}",
        *balanced,
        f"{low:.3f}–{high:.3f}",
        against,
        f"{1000 * candidate.seconds:.1f}",
        format_bytes(candidate.weight_bytes),
        f"{candidate.logme:.3f}",
    ]
