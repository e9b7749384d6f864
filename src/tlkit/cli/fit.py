"""`tlkit fit`: trains a classifier on labelled images, without a recipe."""

from __future__ import annotations

import re
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from tlkit.cli.console import say
from tlkit.cli.options import (
    DeviceOption,
    OutOption,
    ReportOption,
    SeparatorOption,
    check_holds_images,
)
from tlkit.cli.results_text import print_results
from tlkit.cli.run import make_report, warn_of_copies

if TYPE_CHECKING:
    from tlkit.experiment.observer import Observer, Run
    from tlkit.experiment.results import Results

UNITS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0}


class Task(StrEnum):
    """How many labels an image has."""

    multiclass = "multiclass"
    multilabel = "multilabel"


class Quality(StrEnum):
    """How much is tried."""

    best = "best"
    fast = "fast"


def duration(text: str) -> float:
    """Parses a duration such as ``90s``, ``10m`` or ``1.5h``, in seconds."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smh]?)", text.strip())
    if match is None or not float(match[1]):
        raise typer.BadParameter(f"{text!r} is not a duration, such as 90s, 10m or 1.5h")
    return float(match[1]) * UNITS[match[2]]


def fit(
    images: Annotated[
        Path,
        typer.Argument(
            help="A folder per class, with or without train/val/test above; or a CSV with path and label."
        ),
    ],
    task: Annotated[
        Task, typer.Option(help="multilabel: the CSV has several labels per image.")
    ] = Task.multiclass,
    separator: SeparatorOption = None,
    backbone: Annotated[
        str | None,
        typer.Option(
            help="Any backbone, or local-dir:PATH; auto: the best at hand. A small ConvNeXt unless given."
        ),
    ] = None,
    weights: Annotated[
        str | None, typer.Option(help="pretrained, none, or a .safetensors file; pretrained unless given.")
    ] = None,
    quality: Annotated[Quality, typer.Option(help="best, or fast: the probe alone.")] = Quality.best,
    folds: Annotated[
        int | None, typer.Option(min=2, max=100, help="Folds of the cross-validation; 5 or 10 unless given.")
    ] = None,
    test: Annotated[
        float | None,
        typer.Option(
            help="Fraction held out for testing, instead of folds; 0.2 for over 5,000 images unless given."
        ),
    ] = None,
    group: Annotated[
        str | None,
        typer.Option(
            metavar="REGEX", help="Images whose names match alike, such as 'patient\\d+', stay in one fold."
        ),
    ] = None,
    time_limit: Annotated[
        str | None, typer.Option(metavar="DURATION", help="Try nothing more after this time, such as 10m.")
    ] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Epochs of fine-tuning; 10 unless given.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of folds, image order and augmentation.")] = 1,
    track: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TRACKER",
            help="Send the run to tensorboard, mlflow or wandb; may be repeated.",
        ),
    ] = None,
    out: OutOption = None,
    device: DeviceOption = None,
    report: ReportOption = True,
) -> None:
    """Train the best classifier that labelled images allow; the choices are made and shown."""
    check_holds_images(images)
    limit = None if time_limit is None else duration(time_limit)
    from tlkit.cli.observer import watching
    from tlkit.fitting.fit import fit as fit_images
    from tlkit.runtime.distributed import process_state

    chosen: Literal["best", "fast"] = "best" if quality is Quality.best else "fast"
    with watching() as observer:
        run = fit_images(
            images,
            task="multilabel" if task is Task.multilabel else "multiclass",
            separator=separator,
            backbone=backbone,
            weights=weights,
            quality=chosen,
            folds=folds,
            test=test,
            group=group,
            time_limit=limit,
            epochs=epochs,
            seed=seed,
            track=track or (),
            out=out,
            device=device,
            observer=observer,
        )
        if process_state().is_main_process:
            _print_run(run, observer)
            if report:
                make_report(run, observer, device)


def _print_run(run: Run, observer: Observer) -> None:
    say()
    print_results(run.results)
    say()
    for sentence in summarise(run.results):
        say(sentence, hanging=2)
    warn_of_copies(run, observer)
    say(
        f"{run.folder}: the classifier, for tlkit predict; its recipe.toml is the recipe that was run",
        hanging=2,
    )


def summarise(results: Results) -> list[str]:
    """Says in words how good the classifier is, how that was measured, and what it was trained on."""
    last, data = results.phases[-1], results.data
    if last.multilabel is not None:
        return [f"The classifier is that of {last.name}, trained on {data.train:,} images."]
    scores, taken = last.measured, [result for result in results.phases if result.is_taken]
    # of these, one whose epochs were no better has the weights of the phase that it starts from
    unchanged = [result.name for result in taken if result.keeps_start]
    trained = [result.name for result in taken if result.name not in unchanged]
    low, high = scores.ci95
    balanced = ""
    if scores.describe_inequality(results.classes):
        balanced = f" If every class counts equally, it is {100 * scores.balanced_accuracy:.1f}%."
    sentences = [
        f"{last.describe_expectation()}; the 95% interval is {low:.1%} to {high:.1%}. "
        f"{last.describe_evidence()}.{balanced}",
        f"The classifier is that of {trained[-1]}, trained on {data.train:,} images.",
    ]
    if unchanged:
        where = f"on the {data.val:,} validation images" if data.val else "in most folds"
        sentences.append(f"No epoch of {', '.join(unchanged)} was better {where}.")
    if not_taken := [result.name for result in results.phases if not result.is_taken]:
        sentences.append(f"Not taken: {', '.join(not_taken)}; the reasons are above.")
    return sentences
