"""`tlkit evaluate`: a classifier's scores on labelled images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tlkit.cli.console import json_line, say
from tlkit.cli.multilabel_text import print_multilabel_scores
from tlkit.cli.options import (
    DeviceOption,
    ModelArgument,
    PhaseOption,
    PrecisionOption,
    RejectOption,
    SeparatorOption,
    UnknownOption,
    WorkersOption,
    WorkersSetOption,
    check_holds_images,
    workers_table,
)
from tlkit.cli.results_text import print_evaluation, print_mistakes


def evaluate(
    model: ModelArgument,
    images: Annotated[Path, typer.Argument(help="A folder per class, or a CSV file with path and label.")],
    json_: Annotated[
        bool, typer.Option("--json", help="One JSON object, as under test in results.json.")
    ] = False,
    mistakes: Annotated[
        bool,
        typer.Option("--mistakes", help="List the images that are predicted wrongly, or add them to --json."),
    ] = False,
    separator: SeparatorOption = None,
    reject_below: RejectOption = None,
    unknown: UnknownOption = True,
    phase: PhaseOption = None,
    device: DeviceOption = None,
    precision: PrecisionOption = "float32",
    engine: WorkersOption = None,
    set_: WorkersSetOption = None,
) -> None:
    """Evaluate a classifier on labelled images; classes are matched by name.

    Where images may have several labels, the CSV file has them with | or another separator between them, or a
    column of 0 and 1 for each class.
    """
    check_holds_images(images)
    workers = workers_table(engine, set_)
    from tlkit.cli.observer import ConsoleObserver
    from tlkit.evaluation.multilabel import MultilabelScores
    from tlkit.inference.answers import evaluate as evaluate_images

    evaluation = evaluate_images(
        model,
        images,
        separator=separator,
        phase=phase,
        reject_below=reject_below,
        unknown=unknown,
        device=device,
        precision=precision,
        engine=workers,
        observer=ConsoleObserver(),
    )
    if isinstance(evaluation, MultilabelScores):
        if mistakes:
            raise typer.BadParameter("--mistakes is for one label per image: this model predicts several")
        if json_:
            json_line(evaluation.model_dump(mode="json"))
        else:
            say(f"{evaluation.n:,} images")
            print_multilabel_scores(evaluation)
    elif json_:
        without = {key for key in ("rejected", "unknown") if getattr(evaluation, key) is None}
        without |= set() if mistakes else {"mistakes"}
        json_line(evaluation.model_dump(mode="json", by_alias=True, exclude=without))
    else:
        print_evaluation(evaluation)
        if mistakes:
            print_mistakes(evaluation.mistakes)
