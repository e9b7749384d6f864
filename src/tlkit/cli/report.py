"""`tlkit report` and `tlkit compare`: the page of a run, and of several."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tlkit.cli.console import say
from tlkit.cli.options import DeviceOption
from tlkit.cli.results_text import print_comparison


def report(
    run: Annotated[Path, typer.Argument(help="A run folder, finished or interrupted.")],
    device: DeviceOption = None,
) -> None:
    """Regenerate a run's report.html and its pictures."""
    from tlkit.cli.observer import ConsoleObserver
    from tlkit.experiment.record import check_is_run

    check_is_run(run)  # before torch is imported
    from tlkit.reporting.page import report as make_report

    say(str(make_report(run, observer=ConsoleObserver(), device=device)))


def compare(
    runs: Annotated[list[Path], typer.Argument(help="Two or more run folders.")],
    out: Annotated[Path, typer.Option(help="The folder to write compare.html and its pictures to.")] = Path(
        "comparison"
    ),
    images: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Images to compare on: a folder per class, or a CSV file with path and label; "
            "the test images that all runs share unless given.",
        ),
    ] = None,
    device: DeviceOption = None,
) -> None:
    """Compare several runs on the same images: accuracy, McNemar's test, recipes, epochs, cost."""
    from tlkit.cli.observer import ConsoleObserver
    from tlkit.reporting.compare import compare as compare_runs

    comparison = compare_runs(runs, out, images=images, device=device, observer=ConsoleObserver())
    print_comparison(comparison)
    say(str(comparison.page))
