"""`tlkit predict`: labels images."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from enum import Enum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tlkit.cli.console import counting, format_rate, json_line, say
from tlkit.cli.options import (
    IMAGES_HELP,
    DeviceOption,
    ModelArgument,
    PhaseOption,
    PrecisionOption,
    RejectOption,
    UnknownOption,
    WorkersOption,
    WorkersSetOption,
    workers_table,
)
from tlkit.errors import DataError
from tlkit.inference.prediction_parquet import check_parquet, named_scores, writing_parquet
from tlkit.parts.task import join_labels
from tlkit.utils.csv_cells import write_rows
from tlkit.utils.formatting import plural, printable

if TYPE_CHECKING:
    from tlkit.inference.loading import LoadOptions
    from tlkit.inference.prediction import Prediction

#: Of fewer images, the first one, which is slower, decides on the rate.
LEAST_FOR_RATE = 32


class Format(Enum):
    """How predictions are printed."""

    table = "table"
    json = "json"
    csv = "csv"


def predict(
    model: ModelArgument,
    paths: Annotated[
        list[str],
        typer.Argument(metavar="PATH...", help=IMAGES_HELP),
    ],
    top: Annotated[int, typer.Option(min=1, help="How many classes to list with their probabilities.")] = 1,
    json_: Annotated[bool, typer.Option("--json", help="One JSON object per line.")] = False,
    csv_: Annotated[bool, typer.Option("--csv", help="Comma-separated values with a header.")] = False,
    reject_below: RejectOption = None,
    unknown: UnknownOption = True,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write a .parquet file instead of printing.")
    ] = None,
    engine: WorkersOption = None,
    set_: WorkersSetOption = None,
    phase: PhaseOption = None,
    device: DeviceOption = None,
    precision: PrecisionOption = "float32",
) -> None:
    """Label images; exit with code 1 if some cannot be read, after labelling the others."""
    from tlkit.data.image_paths import image_paths

    images = image_paths(paths, sys.stdin)  # a mistake is reported before torch is imported
    _check_out(out, prints=json_ or csv_)
    workers = workers_table(engine, set_)
    options: LoadOptions = {
        "phase": phase,
        "reject_below": reject_below,
        "unknown": unknown,
        "device": device,
        "precision": precision,
    }
    if workers is None:
        from tlkit.inference.loading import load

        predictor = load(model, **options)
        classes, predictions = predictor.classes, predictor.stream(images, top=top)
    else:
        classes, predictions = _in_workers(workers, model, images, top, options)
    output = Format.json if json_ else Format.csv if csv_ else Format.table
    began, count, failed = time.monotonic(), 0, 0
    with ExitStack() as opened:
        write = opened.enter_context(writing_parquet(out)) if out else _writer(output, top, classes)
        tick = opened.enter_context(counting("predicting", "images"))
        for prediction in predictions:
            write(prediction)
            count += 1
            failed += prediction.error is not None
            tick(1)
    seconds = max(time.monotonic() - began, 1e-9)
    unreadable = f"; {failed:,} could not be read" if failed else ""
    rate = f", {format_rate(count / seconds)}" if count >= LEAST_FOR_RATE else ""
    say(f"{plural(count, 'image')} in {seconds:,.1f} s{rate}{unreadable}", stderr=True)
    if failed:
        raise typer.Exit(1)


def _check_out(out: Path | None, *, prints: bool) -> None:
    """Raises DataError where the predictions cannot be written to a file."""
    if out is not None:
        check_parquet(out)
        if prints:
            raise DataError("--json and --csv print, and --out writes a file: leave one out")


def _in_workers(
    workers: Mapping[str, Any],
    model: Path,
    images: Iterator[str],
    top: int,
    options: LoadOptions,
) -> tuple[tuple[str, ...], Iterator[Prediction]]:
    """Returns the classes of a model, and an iterator over what an engine's workers predict."""
    from tlkit.inference.loading import load
    from tlkit.inference.worker_prediction import stream_from_workers

    # the device is the workers': this computer may have no GPU
    classes = load(model, phase=options["phase"], device="cpu").classes
    note = partial(say, stderr=True)
    return classes, stream_from_workers(workers, model, images, note, top=top, **options)


def _writer(output: Format, top: int, classes: Sequence[str]) -> Callable[[Prediction], object]:
    """Returns a function that prints one prediction; for CSV, the header is printed now."""
    from tlkit.inference.predictor import UNCLASSIFIED, UNKNOWN

    if output is Format.json:
        return lambda prediction: json_line(_json_object(prediction))
    if output is Format.csv:
        top = min(top, len(classes))
        columns = [f"{name}_{rank}" for rank in range(1, top + 1) for name in ("class", "probability")]
        # where images may have several labels, their probabilities are one cell, as they are
        write_rows(sys.stdout, [["path", "label", "confidence", *columns, "error"]])
        return lambda prediction: write_rows(sys.stdout, [_cells(prediction, top)])
    label_width = max(map(len, (*classes, UNCLASSIFIED, UNKNOWN)))
    return lambda prediction: say(_line(prediction, label_width))


def _json_object(prediction: Prediction) -> dict[str, object]:
    answer: dict[str, object] = {"label": prediction.label, "confidence": prediction.confidence}
    if prediction.labels is not None:
        answer = {"labels": named_scores(prediction.labels)}
    return {
        "path": prediction.image,
        **answer,
        "top": named_scores(prediction.top),
        "error": prediction.error,
        "novelty": prediction.novelty,
    }


def _cells(prediction: Prediction, top: int) -> list[str | float]:
    top_cells = [cell for pair in prediction.top for cell in pair]
    padding = [""] * (2 * top - len(top_cells))
    confidence: str | float = "" if prediction.confidence is None else prediction.confidence
    if prediction.labels is not None:
        confidence = join_labels(f"{probability:.7g}" for _, probability in prediction.labels)
    return [
        prediction.image,
        prediction.label or "",
        confidence,
        *top_cells,
        *padding,
        prediction.error or "",
    ]


def _line(prediction: Prediction, label_width: int) -> str:
    image = printable(prediction.image)
    if prediction.error is not None:
        return f"{'–':<{label_width}}         {image}: cannot be read: {prediction.error}"
    if prediction.labels is not None:
        labels = ", ".join(f"{name} {probability:.1%}" for name, probability in prediction.labels)
        return f"{image}: {labels or 'no label'}"
    others = ", ".join(f"{name} {probability:.1%}" for name, probability in prediction.top[1:])
    confidence = f"{prediction.label:<{label_width}}  {prediction.confidence:6.1%}"
    return f"{confidence} {image}{f'  ({others})' if others else ''}"
