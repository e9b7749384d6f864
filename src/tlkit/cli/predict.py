"""`tlkit predict`: labels for images."""

from __future__ import annotations

import csv
import sys
import time
from collections.abc import Callable
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tlkit.cli.console import counting, json_line, say

if TYPE_CHECKING:
    from tlkit.inference.predictor import Prediction

Model = Annotated[Path, typer.Argument(help="A model folder, or a run folder.")]
PhaseOption = Annotated[str | None, typer.Option(help="Of a run folder: this phase instead of the last.")]
DeviceOption = Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, mps; the best unless given.")]
RejectOption = Annotated[
    float | None,
    typer.Option(min=0, max=1, help="Say 'unclassified' below this confidence; what is stored unless given."),
]


class Form(Enum):
    """How predictions are printed."""

    table = "table"
    json = "json"
    csv = "csv"


def predict(
    model: Model,
    paths: Annotated[
        list[str],
        typer.Argument(metavar="PATH...", help="Images, folders, patterns; - reads a list of paths."),
    ],
    top: Annotated[int, typer.Option(min=1, help="How many classes to list with their probabilities.")] = 1,
    json_: Annotated[bool, typer.Option("--json", help="One JSON object per line.")] = False,
    csv_: Annotated[bool, typer.Option("--csv", help="Comma-separated values with a header.")] = False,
    reject_below: RejectOption = None,
    phase: PhaseOption = None,
    device: DeviceOption = None,
) -> None:
    """Label images. Ends with code 1 if some could not be read; the rest is labelled all the same."""
    from tlkit.data.image_paths import image_paths
    from tlkit.inference.predictor import load
    from tlkit.runtime.memory import keep_freed_memory

    keep_freed_memory()
    predictor = load(model, phase=phase, reject_below=reject_below, device=device)
    images = image_paths(paths, sys.stdin)
    form = Form.json if json_ else Form.csv if csv_ else Form.table
    write = _writer(
        form, min(top, len(predictor.classes)), max(map(len, (*predictor.classes, "unclassified")))
    )
    began, count, failed = time.monotonic(), 0, 0
    with counting("predicting", "images") as tick:
        for prediction in predictor.stream(images, top=top):
            write(prediction)
            count += 1
            failed += prediction.error is not None
            tick(1)
    spent = max(time.monotonic() - began, 1e-9)
    unreadable = f"; {failed:,} could not be read" if failed else ""
    say(f"{count:,} images in {spent:,.1f} s, {count / spent:,.0f}/s{unreadable}", stderr=True)
    if failed:
        raise typer.Exit(1)


def _writer(form: Form, top: int, width: int) -> Callable[[Prediction], Any]:
    if form is Form.json:
        return lambda found: json_line(_object(found))
    if form is Form.csv:
        rows = csv.writer(sys.stdout, lineterminator="\n")
        names = [f"{name}_{place}" for place in range(1, top + 1) for name in ("class", "probability")]
        rows.writerow(["path", "label", "confidence", *names, "error"])
        return lambda found: rows.writerow(_cells(found, top))
    return lambda found: say(_line(found, width))


def _object(found: Prediction) -> dict[str, Any]:
    return {
        "path": found.image,
        "label": found.label,
        "confidence": found.confidence,
        "top": [{"class": name, "probability": probability} for name, probability in found.top],
        "error": found.error,
    }


def _cells(found: Prediction, top: int) -> list[Any]:
    listed = [cell for pair in found.top for cell in pair]
    blank = "" if found.confidence is None else found.confidence
    return [
        found.image,
        found.label or "",
        blank,
        *listed,
        *[""] * (2 * top - len(listed)),
        found.error or "",
    ]


def _line(found: Prediction, width: int) -> str:
    if found.error is not None:
        return f"{'–':<{width}}         {found.image}: cannot be read: {found.error}"
    others = ", ".join(f"{name} {probability:.1%}" for name, probability in found.top[1:])
    return f"{found.label:<{width}}  {found.confidence:6.1%} {found.image}{f'  ({others})' if others else ''}"
