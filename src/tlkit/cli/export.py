"""`tlkit export`: writes a classifier in another tool's format."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tlkit.cli.console import say
from tlkit.cli.options import ModelArgument, PhaseOption
from tlkit.utils.formatting import format_p_value, plural

if TYPE_CHECKING:
    from tlkit.inference.export_checks import Int8Loss

#: Images that show what 8-bit integers cost.
ENOUGH = 300


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
            help="ONNX only: images (photos of any size), or tensor (normalised images, the network alone).",
        ),
    ] = Input.images,
    int8: Annotated[
        bool,
        typer.Option(
            "--int8", help="ONNX only: compute in 8-bit integers, and measure the loss of accuracy."
        ),
    ] = False,
    phase: PhaseOption = None,
) -> None:
    """Export a classifier for another tool; the export is kept only if its predictions are the same."""
    from tlkit.inference.exporting import export as export_model

    if format_ is not Format.onnx and (int8 or input_ is not Input.images):
        raise typer.BadParameter(f"{'--int8' if int8 else '--input tensor'} is for --format onnx")
    check = export_model(
        model,
        out,
        format=format_.value,
        images=images,
        input=input_.value,
        int8=int8,
        phase=phase,
    )
    if check.int8 is not None:
        say(f"{out}: {describe_int8(check.int8)}", hanging=2)
    elif not check.left_out and not check.changed:
        say(f"{out}: same predictions as {model} on {plural(check.images, 'image')}")
    elif not check.left_out:
        say(
            f"{out}: {check.changed:,} of {plural(check.images, 'image')}, close to a threshold, get another "
            f"label than from {model}",
            hanging=2,
        )
    else:
        say(
            f"{out}: {format_.value} does not support {' and '.join(check.left_out)}; without it, "
            f"{check.changed:,} of {plural(check.images, 'image')} get another label than from {model}",
            hanging=2,
        )


def describe_int8(loss: Int8Loss) -> str:
    """Describes what 8-bit integers cost."""
    few = ", too few to show a small loss" if loss.images < ENOUGH else ""
    images = plural(loss.images, "image")
    calibrated = plural(loss.calibrated, "validation image" if loss.calibrated_on_val else "training image")
    if not loss.calibrated_on_val:
        calibrated += " (the run has no validation images)"
    return (
        f"8-bit integers, calibrated on {calibrated}; of {images} "
        f"that were not trained on{few}, {loss.after:,} are predicted correctly, {loss.before:,} before "
        f"({loss.gained:,} gained, {loss.lost:,} lost, {format_p_value(loss.p)} by McNemar's test)"
    )
