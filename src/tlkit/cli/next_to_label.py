"""`tlkit next`: which unlabelled images to label next."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tlkit.cli.console import json_line, say, table
from tlkit.cli.options import DeviceOption, PhaseOption
from tlkit.utils.csv_cells import write_rows
from tlkit.utils.formatting import plural, printable

if TYPE_CHECKING:
    from tlkit.analysis.next_to_label import ImageToLabel, NextToLabel


def next_to_label(
    paths: Annotated[
        list[Path],
        typer.Argument(
            metavar="[MODEL] FOLDER",
            help="A run or model folder, unless nothing is labelled yet; then the folder of images.",
        ),
    ],
    count: Annotated[int, typer.Option(min=1, help="How many images to select.")] = 20,
    csv_: Annotated[Path | None, typer.Option("--csv", metavar="FILE", help="Write the list as CSV.")] = None,
    json_: Annotated[bool, typer.Option("--json", help="Print one JSON object per line.")] = False,
    backbone: Annotated[
        str | None, typer.Option(help="Backbone whose features are compared if there is no MODEL.")
    ] = None,
    phase: PhaseOption = None,
    seed: Annotated[int, typer.Option(help="Seed of the clusters that the images are chosen from.")] = 0,
    device: DeviceOption = None,
) -> None:
    """Select the unlabelled images from which a classifier would learn most."""
    if len(paths) > 2:
        raise typer.BadParameter("give a model and a folder of images, or the folder alone")
    from tlkit.data.image_paths import image_paths
    from tlkit.inference.loading import find_model

    if len(paths) == 2:
        find_model(paths[0], phase)  # a mistake is reported before torch is imported
    image_paths([str(paths[-1])], ())
    from tlkit.analysis.next_to_label import next_to_label as select
    from tlkit.cli.observer import ConsoleObserver

    selection = select(
        paths[0] if len(paths) == 2 else None,
        paths[-1],
        count,
        backbone=backbone,
        phase=phase,
        seed=seed,
        device=device,
        observer=ConsoleObserver(),
    )
    if csv_ is not None:
        _write_csv(selection, csv_)
    if json_:
        for image in selection.images:
            json_line(_json_object(image))
    else:
        _print_table(selection.images, with_classes=len(paths) == 2)
    for path, reason in selection.unreadable:
        say(f"{printable(path)} cannot be read: {reason}", stderr=True)
    labelled = f"; {selection.labelled:,} have labels already" if selection.labelled else ""
    say(
        f"{len(selection.images):,} of {plural(selection.candidates, 'image')}{labelled}",
        stderr=True,
    )
    if len(paths) == 2:
        say(_describe_comparison(selection.compared), stderr=True)


def _print_table(images: Sequence[ImageToLabel], with_classes: bool) -> None:
    """Prints a row per image; without a model, no classes are known."""
    rows = [
        (f"{image.score:.1f}", f"{image.similar:,}", printable(image.image), _top(image)) for image in images
    ]
    columns = ("score>", "similar>", "image", "classes")
    shown = len(columns) if with_classes else len(columns) - 1
    table(None, columns[:shown], [row[:shown] for row in rows])


def _describe_comparison(compared: int) -> str:
    if compared:
        return f"compared with {plural(compared, 'training image')}"
    return "not compared with training images: only a model that tells unknown images holds their features"


def _top(image: ImageToLabel) -> str:
    return ", ".join(f"{name} {probability:.0%}" for name, probability in image.top)


def _json_object(image: ImageToLabel) -> dict[str, object]:
    return {
        "path": image.image,
        "score": image.score,
        "similar": image.similar,
        "top": [{"class": name, "probability": probability} for name, probability in image.top],
    }


def _write_csv(selection: NextToLabel, path: Path) -> None:
    """Writes a row per selected image, for a spreadsheet or a labelling tool."""
    from tlkit.utils.atomic_write import atomic_write

    ranks = range(1, max(len(image.top) for image in selection.images) + 1)
    columns = [f"{name}_{rank}" for rank in ranks for name in ("class", "probability")]
    rows = [
        [image.image, image.score, image.similar, *(cell for pair in image.top for cell in pair)]
        for image in selection.images
    ]
    try:
        with atomic_write(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
            write_rows(file, [["path", "score", "similar", *columns], *rows])
    except OSError as error:
        raise typer.BadParameter(f"{path} cannot be written: {error.strerror or error}") from error
