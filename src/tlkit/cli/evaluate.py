"""`tlkit evaluate`: what a classifier is worth on images whose class is known."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from tlkit.cli.console import json_line, print_evaluation, progress
from tlkit.cli.predict import DeviceOption, Model, PhaseOption, RejectOption


def evaluate(
    model: Model,
    images: Annotated[Path, typer.Argument(help="A folder per class, or a CSV file with path and label.")],
    json_: Annotated[
        bool, typer.Option("--json", help="The object that results.json has under test.")
    ] = False,
    reject_below: RejectOption = None,
    phase: PhaseOption = None,
    device: DeviceOption = None,
) -> None:
    """Measure a classifier on labelled images; classes are matched by name."""
    from tlkit.data.labelled import labelled_images
    from tlkit.inference.predictor import load
    from tlkit.runtime.memory import keep_freed_memory

    keep_freed_memory()
    predictor = load(model, phase=phase, reject_below=reject_below, device=device)
    paths, labels = labelled_images(images)
    with progress("evaluating", len(paths), "images") as tick:
        result: dict[str, Any] = predictor.evaluate(paths, labels, tick=tick)
    if json_:
        json_line(result)
    else:
        print_evaluation(result)
