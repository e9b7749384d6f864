"""`tlkit fit`: trains a classifier on a folder of images, without a recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tlkit.cli.console import say
from tlkit.cli.options import DeviceOption, OutOption, ReportOption
from tlkit.cli.results_text import print_results
from tlkit.cli.run import make_report


def fit(
    folder: Annotated[Path, typer.Argument(help="A folder per class, with or without train/val/test above.")],
    backbone: Annotated[
        str | None, typer.Option(help="Any backbone, also local-dir:PATH; a small ConvNeXt unless given.")
    ] = None,
    weights: Annotated[
        str | None, typer.Option(help="pretrained, none, or a .safetensors file; pretrained unless given.")
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(min=1, help="Maximum number per phase; 50 and 20 unless given.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of splits, image order and augmentation.")] = 1,
    out: OutOption = None,
    device: DeviceOption = None,
    report: ReportOption = True,
) -> None:
    """Train a classifier on a folder of class folders; the choices are made and shown."""
    from tlkit.cli.observer import watching
    from tlkit.fitting.fit import fit as fit_folder
    from tlkit.runtime.distributed import process_state
    from tlkit.runtime.memory import keep_freed_memory

    keep_freed_memory()
    with watching() as observer:
        run = fit_folder(
            folder,
            backbone=backbone,
            weights=weights,
            epochs=epochs,
            seed=seed,
            out=out,
            device=device,
            observer=observer,
        )
        if not process_state().is_main_process:
            return
        say()
        print_results(run.results)
        last = run.results.phases[-1]
        if last.epochs and not last.best_epoch:
            say("Fine-tuning was not better on the validation images: the bottleneck's weights are used.")
        say(
            f"{run.folder}: the classifier, for tlkit predict; its recipe.toml is the recipe that was run",
            hanging=2,
        )
        if report:
            make_report(run.folder, observer, device)
