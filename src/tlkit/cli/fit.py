"""`tlkit fit`: a classifier from a folder, without a recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tlkit.cli.console import print_results, say
from tlkit.cli.run import ReportOption, console_observer, make_report


def fit(
    folder: Annotated[Path, typer.Argument(help="A folder per class, with or without train/val/test above.")],
    backbone: Annotated[
        str | None, typer.Option(help="Any backbone, local-dir:PATH too; a small ConvNeXt unless given.")
    ] = None,
    weights: Annotated[
        str | None, typer.Option(help="pretrained, none, or a .safetensors file; pretrained unless given.")
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(min=1, help="Of each phase, at most; 50 and 20 unless given.")
    ] = None,
    seed: Annotated[int, typer.Option(help="What splits, order and augmentation are drawn from.")] = 1,
    out: Annotated[Path | None, typer.Option(help="The run folder; runs/NAME/NUMBER unless given.")] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, mps; the best unless given.")] = None,
    report: ReportOption = True,
) -> None:
    """Train a classifier on a folder of class folders; the choices are made and shown."""
    from tlkit.experiment.observer import Observer
    from tlkit.fitting.fit import BACKBONE
    from tlkit.fitting.fit import fit as fit_folder
    from tlkit.runtime.distributed import process_state
    from tlkit.runtime.memory import keep_freed_memory

    keep_freed_memory()
    speaks = process_state().is_main_process
    observer = console_observer() if speaks else Observer()
    ended = fit_folder(
        folder,
        backbone=backbone or BACKBONE,
        weights=weights,
        epochs=epochs,
        seed=seed,
        out=out,
        device=device,
        observer=observer,
    )
    if speaks:
        say()
        print_results(ended.results)
        last = ended.results["phases"][-1]
        if last["epochs"] and not last["best_epoch"]:
            say("Fine-tuning was no better on the validation images: the bottleneck's weights are kept.")
        say(f"{ended.folder}: the classifier, for tlkit predict; recipe.toml in it is what was run")
        if report:
            make_report(ended.folder, observer, device)
