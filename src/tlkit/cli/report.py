"""`tlkit report` and `tlkit compare`: pages of one run, and of several."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tlkit.cli.console import say, table
from tlkit.cli.predict import DeviceOption
from tlkit.cli.run import console_observer
from tlkit.utils.formatting import format_duration, format_p_value


def report(
    run: Annotated[Path, typer.Argument(help="A run folder, finished or cut short.")],
    device: DeviceOption = None,
) -> None:
    """Make report.html of a run again, and its pictures."""
    from tlkit.reporting import report as make_report
    from tlkit.runtime.memory import keep_freed_memory

    keep_freed_memory()
    say(str(make_report(run, observer=console_observer(), device=device)))


def compare(
    runs: Annotated[list[Path], typer.Argument(help="Run folders, two or more.")],
    out: Annotated[Path, typer.Option(help="The folder to write: compare.html and its pictures.")] = Path(
        "comparison"
    ),
) -> None:
    """Compare several runs: accuracy, McNemar's test on common test images, epochs, cost."""
    from tlkit.reporting import compare as make_comparison

    found = make_comparison(runs, out)
    rows = []
    for row in found.runs:
        low, high = row["test"]["ci95"]
        count = f"{row['test']['correct']:,} of {row['test']['n']:,}"
        accuracy = f"{row['test']['accuracy']:.3f}"
        took = format_duration(row["seconds"]["total"])
        rows.append((row["name"], row["phase"], accuracy, f"{low:.3f} – {high:.3f}", count, took))
    columns = ("run", "last phase", "accuracy>", "95% interval", "right>", "took>")
    table("Accuracy on the test images", columns, rows)
    pairs = [
        (
            pair["first"],
            pair["second"],
            f"{pair['n']:,}",
            f"{pair['lost']:,}",
            f"{pair['gained']:,}",
            format_p_value(pair["p"]) if pair["n"] else "not comparable",
        )
        for pair in found.pairs
    ]
    columns = ("run", "against", "common images>", "only first right>", "only second right>", "McNemar")
    table("Pair by pair", columns, pairs)
    say(str(found.page))
