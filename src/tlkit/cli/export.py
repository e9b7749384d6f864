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
    openvino = "openvino"


class Input(Enum):
    """What an ONNX file takes."""

    images = "images"
    tensor = "tensor"


def export(
    model: ModelArgument,
    format_: Annotated[
        Format,
        typer.Option(
            "--format", help="timm: a folder that timm loads; onnx: a file; openvino: a folder for OpenVINO."
        ),
    ],
    out: Annotated[Path, typer.Option(help="The folder or file to write.")],
    images: Annotated[
        Path | None,
        typer.Option(help="Images to check the export on; the run's validation images unless given."),
    ] = None,
    input_: Annotated[
        Input,
        typer.Option(
            "--input",
            help="Of an ONNX file: images of any size, or tensor, normalised images for the network alone.",
        ),
    ] = Input.images,
    phase: PhaseOption = None,
) -> None:
    """Export a classifier for another tool; the export is kept only if its predictions are the same."""
    from tlkit.data.image_paths import image_paths
    from tlkit.inference.export import export_timm
    from tlkit.inference.export_checks import validation_images
    from tlkit.inference.export_onnx import export_onnx
    from tlkit.inference.export_openvino import export_openvino
    from tlkit.inference.loading import find_model

    if input_ is not Input.images and format_ is not Format.onnx:
        raise typer.BadParameter(f"--input {input_.value} is for --format onnx")
    folder = find_model(model, phase)
    paths = [Path(path) for path in image_paths([str(images)], ())] if images else validation_images(folder)
    if format_ is Format.timm:
        check = export_timm(folder, out, paths)
    elif format_ is Format.openvino:
        check = export_openvino(folder, out, paths)
    else:
        check = export_onnx(folder, out, paths, input_=input_.value)
    if not check.left_out:
        say(f"{out}: same predictions as {folder} on {plural(check.images, 'image')}")
        return
    say(
        f"{out}: {format_.value} has no place for {' and '.join(check.left_out)}; without that, "
        f"{check.changed:,} of {plural(check.images, 'image')} get another label than from {folder}",
        hanging=2,
    )
