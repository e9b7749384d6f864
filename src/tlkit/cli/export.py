"""`tlkit export`: writes a classifier in another tool's format."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from tlkit.cli.console import say
from tlkit.cli.options import ModelArgument, PhaseOption
from tlkit.utils.formatting import plural


class Format(Enum):
    """The formats that can be written."""

    timm = "timm"
    onnx = "onnx"


def export(
    model: ModelArgument,
    format_: Annotated[
        Format, typer.Option("--format", help="timm: a folder that timm loads; onnx: a file.")
    ],
    out: Annotated[Path, typer.Option(help="The folder or file to write.")],
    images: Annotated[
        Path | None,
        typer.Option(help="Images to check the export on; the run's validation images unless given."),
    ] = None,
    phase: PhaseOption = None,
) -> None:
    """Export a classifier for timm or ONNX; the export is kept only if its predictions are the same."""
    from tlkit.inference.exporting import export as export_model

    check = export_model(model, out, format=format_.value, images=images, phase=phase)
    if not check.left_out:
        say(f"{out}: same predictions as {model} on {plural(check.images, 'image')}")
        return
    say(
        f"{out}: {format_.value} has no place for {' and '.join(check.left_out)}; without that, "
        f"{check.changed:,} of {plural(check.images, 'image')} get another label than from {model}",
        hanging=2,
    )
