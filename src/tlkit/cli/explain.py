"""`tlkit explain` and `tlkit visualize`: where a classifier looks, and what its layers respond to."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import typer

from tlkit.cli.console import say
from tlkit.cli.options import IMAGES_HELP, DeviceOption, ModelArgument, PhaseOption
from tlkit.utils.formatting import printable


def explain(
    model: ModelArgument,
    paths: Annotated[list[str], typer.Argument(metavar="PATH...", help=IMAGES_HELP)],
    out: Annotated[Path, typer.Option(help="The folder to write PNG files to.")] = Path("explained"),
    class_: Annotated[
        str | None,
        typer.Option("--class", help="The class to explain; the predicted one unless given."),
    ] = None,
    phase: PhaseOption = None,
    device: DeviceOption = None,
) -> None:
    """Show where a classifier looks: a heat map over each image, as PNG, captioned."""
    from tlkit.data.image_paths import image_paths

    images = [Path(path) for path in image_paths(paths, sys.stdin)]
    from tlkit.errors import DataError
    from tlkit.inference.loading import load

    predictor = load(model, phase=phase, device=device)  # finds a mistake before torch is imported
    from tlkit.interpret.attribution import explain as explain_image
    from tlkit.interpret.png import with_caption, write_png

    failed = 0
    used: set[str] = set()
    folders = {image.absolute().parent for image in images}
    for image in images:
        try:
            attribution = explain_image(predictor, image, label=class_)
        except DataError as error:
            if class_ is not None and class_ not in predictor.classes:
                raise
            failed += 1
            say(str(error), stderr=True)
            continue
        folder = image.absolute().parent.name  # often the class
        name = image.stem if len(folders) == 1 else f"{folder}/{image.stem}"
        target = out / f"{_unused_name(name, used)}.png"
        if target.exists() and any(target.samefile(other) for other in images if other.exists()):
            raise DataError(f"{target} is one of the images: name another folder with --out")
        caption = f"{attribution.caption()}\n{printable(f'{folder}/{image.name}')}"
        file = write_png(target, with_caption(attribution.overlay(), caption))
        probability = f"probability {attribution.probability:.3f}"
        shown = f"{attribution.method} for {attribution.label}, {probability}"
        say(f"{file}: {shown}, in {printable(str(image))}")
    if failed:
        raise typer.Exit(1)


def visualize(
    model: ModelArgument,
    layer: Annotated[
        list[str] | None,
        typer.Option(help="A layer of the backbone; an early, a middle and the last one unless given."),
    ] = None,
    channels: Annotated[
        str | None, typer.Option(help="Such as 0,7,30-33; four evenly spaced ones unless given.")
    ] = None,
    regularization: Annotated[
        Literal["none", "l2", "blur"], typer.Option(help="What keeps the images smooth.")
    ] = "blur",
    steps: Annotated[int, typer.Option(min=1, help="Number of gradient ascent steps.")] = 60,
    size: Annotated[
        int | None, typer.Option(min=16, help="Image size in pixels; the network's own unless given.")
    ] = None,
    out: Annotated[Path, typer.Option(help="The folder to write PNG files to.")] = Path("visualized"),
    phase: PhaseOption = None,
    device: DeviceOption = None,
) -> None:
    """Make images that maximise channels of a network's layers, side by side in a PNG per layer."""
    from tlkit.inference.loading import load

    predictor = load(model, phase=phase, device=device)  # finds a mistake before torch is imported
    import numpy as np

    from tlkit.cli.observer import ConsoleObserver
    from tlkit.interpret.maximisation import visualize as maximize
    from tlkit.interpret.png import write_png

    layers = maximize(
        predictor,
        layer or (),
        channels=channels,
        regularization=regularization,
        size=size,
        steps=steps,
        observer=ConsoleObserver(),
    )
    for of_layer in layers:
        row = np.concatenate([*of_layer.images], axis=1)
        file = write_png(out / f"{of_layer.layer}-{regularization}.png", row)
        rises = _describe_rises(of_layer.channels, list(of_layer.before), list(of_layer.after))
        say(f"{file}: mean activation of channel {rises}")


def _unused_name(name: str, used: set[str]) -> str:
    """Returns a name that is not in `used`, and adds it: ``1.jpg`` and ``1.png`` would be the same file."""
    plain, numbers = name, itertools.count(2)
    while name in used:
        name = f"{plain}-{next(numbers)}"
    used.add(name)
    return name


def _describe_rises(channels: Sequence[int], before: Sequence[float], after: Sequence[float]) -> str:
    return ", ".join(
        f"{channel}: {low:.2f} to {high:.2f}"
        for channel, low, high in zip(channels, before, after, strict=True)
    )
