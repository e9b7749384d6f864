"""`tlkit export`: a classifier in another tool's form."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from tlkit.cli.console import say
from tlkit.cli.predict import Model, PhaseOption


class Format(Enum):
    """What can be written."""

    timm = "timm"
    onnx = "onnx"


def export(
    model: Model,
    format_: Annotated[
        Format, typer.Option("--format", help="timm: a folder that timm loads; onnx: a file.")
    ],
    out: Annotated[Path, typer.Option(help="The folder or file to write.")],
    images: Annotated[
        Path | None,
        typer.Option(help="Images to check the export on; a run's own validation images unless given."),
    ] = None,
    phase: PhaseOption = None,
) -> None:
    """Write a classifier for timm or ONNX; the answers are compared before it is called done."""
    from tlkit.data.image_paths import image_paths
    from tlkit.inference.export import export_onnx, export_timm, validation_images
    from tlkit.inference.predictor import find_model

    folder = find_model(model, phase)
    found = [Path(path) for path in image_paths([str(images)], ())] if images else validation_images(folder)
    write = export_timm if format_ is Format.timm else export_onnx
    count = write(folder, out, found)
    say(f"{out}: the same answers as {folder} on {count} images")
