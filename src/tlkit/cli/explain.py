"""`tlkit explain` and `tlkit visualize`: where a classifier looks, and what its layers respond to."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Annotated, Literal

import typer

from tlkit.cli.console import progress, say
from tlkit.cli.predict import DeviceOption, Model, PhaseOption


def explain(
    model: Model,
    images: Annotated[list[Path], typer.Argument(help="Image files.")],
    out: Annotated[Path, typer.Option(help="The folder to write PNG files to.")] = Path("explained"),
    class_: Annotated[
        str | None,
        typer.Option("--class", help="Look for this class; the one it gives unless given."),
    ] = None,
    phase: PhaseOption = None,
    device: DeviceOption = None,
) -> None:
    """Show where a classifier looks: a heat map over each image, as PNG."""
    from tlkit.errors import DataError
    from tlkit.inference.predictor import load
    from tlkit.interpret.attribution import explain as attribute
    from tlkit.interpret.png import write_png

    predictor = load(model, phase=phase, device=device)
    failed = 0
    taken: set[str] = set()
    for image in images:
        try:
            seen = attribute(predictor, image, label=class_)
        except DataError as error:
            if class_ is not None and class_ not in predictor.classes:
                raise
            failed += 1
            say(str(error), stderr=True)
            continue
        numbers = itertools.count(2)
        name = image.stem
        while name in taken:
            name = f"{image.stem}-{next(numbers)}"
        taken.add(name)
        target = out / f"{name}.png"
        if target.exists() and any(target.samefile(each) for each in images if each.exists()):
            raise DataError(f"{target} is one of the images: name another folder with --out")
        file = write_png(target, seen.overlay())
        say(f"{file}: {seen.method} for {seen.label}, probability {seen.probability:.3f}")
    if failed:
        raise typer.Exit(1)


def visualize(
    model: Model,
    layer: Annotated[
        list[str] | None,
        typer.Option(help="A layer of the backbone; an early, a middle and the last one unless given."),
    ] = None,
    channels: Annotated[
        str | None, typer.Option(help="Such as 0,7,30-33; four at even distances unless given.")
    ] = None,
    regularization: Annotated[
        Literal["none", "l2", "blur"], typer.Option(help="What keeps the images simple.")
    ] = "blur",
    steps: Annotated[int, typer.Option(min=1, help="Of gradient ascent.")] = 60,
    size: Annotated[int | None, typer.Option(min=16, help="Pixels; the network's own unless given.")] = None,
    out: Annotated[Path, typer.Option(help="The folder to write PNG files to.")] = Path("visualized"),
    phase: PhaseOption = None,
    device: DeviceOption = None,
) -> None:
    """Make images that maximise channels of a network's layers, side by side in a PNG per layer."""
    import numpy as np

    from tlkit.inference.predictor import load
    from tlkit.interpret.layers import find_layer, parse_channels, representative_layers
    from tlkit.interpret.maximisation import maximize
    from tlkit.interpret.png import write_png

    predictor = load(model, phase=phase, device=device)
    names = layer or representative_layers(predictor.module)
    chosen = [parse_channels(find_layer(predictor.module, name), channels) for name in names]
    with progress("maximising", len(names), "layers") as tick:
        for name, places in zip(names, chosen, strict=True):
            made = maximize(
                predictor.module,
                predictor.preprocess,
                name,
                places,
                regularization=regularization,
                size=size,
                steps=steps,
            )
            file = write_png(out / f"{name}-{regularization}.png", np.concatenate([*made.images], axis=1))
            tick(1)
            rises = ", ".join(
                f"{place}: {before:.2f} to {after:.2f}"
                for place, before, after in zip(places, made.before, made.after, strict=True)
            )
            say(f"{file}: mean activation of channel {rises}")
