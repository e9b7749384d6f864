"""`tlkit run`: a recipe, from its plan to its results."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tlkit.cli.console import print_estimates, print_plan, print_results, progress, say

if TYPE_CHECKING:
    from tlkit.experiment.observer import Observer

ReportOption = Annotated[bool, typer.Option("--report/--no-report", help="End with report.html.")]


def run(
    recipe: Annotated[Path, typer.Argument(help="A recipe, or a folder that holds recipe.toml.")],
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change one key, such as phase.fine-tune.epochs=5."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="The run folder; runs/NAME/NUMBER unless given.")] = None,
    phase: Annotated[
        list[str] | None, typer.Option(help="Run this phase only; may be given several times.")
    ] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, mps; the best unless given.")] = None,
    plan: Annotated[bool, typer.Option("--plan", help="Show the plan and stop.")] = False,
    report: ReportOption = True,
) -> None:
    """Run a recipe, or go on with a run that was cut short."""
    from tlkit.experiment.observer import Observer
    from tlkit.experiment.runner import run as run_recipe
    from tlkit.runtime.distributed import process_state
    from tlkit.runtime.memory import keep_freed_memory

    keep_freed_memory()
    speaks = process_state().is_main_process
    observer = console_observer() if speaks else Observer()
    ended = run_recipe(
        recipe, set=set_ or (), out=out, phases=phase or (), device=device, observer=observer, plan_only=plan
    )
    if speaks and not plan:
        say()
        print_results(ended.results)
        say(str(ended.folder))
        if report:
            make_report(ended.folder, observer, device)


def make_report(folder: Path, observer: Observer, device: str | None) -> None:
    """The report of a run that has just ended, unless there is one of its results."""
    from tlkit.reporting import report

    page, results = folder / "report.html", folder / "results.json"
    if not page.is_file() or page.stat().st_mtime < results.stat().st_mtime:
        report(folder, observer=observer, device=device)
    say(str(page))


def console_observer() -> Observer:
    """An observer that shows a run on the console."""
    from tlkit.experiment.observer import Observer

    class Shown(Observer):
        def planned(self, plan: Any) -> None:
            print_plan(plan)

        def estimating(self, estimates: Any) -> None:
            print_estimates(estimates())

        @contextmanager
        def working(self, what: str, total: int, unit: str) -> Iterator[Any]:
            with progress(what, total, unit) as tick:
                yield tick

        def epoch_ended(self, phase: str, row: Mapping[str, float], epochs: int) -> None:
            say(
                f"{phase} {row['epoch']:.0f}/{epochs}: loss {row['train_loss']:.4f}, "
                f"validation loss {row['val_loss']:.4f}, accuracy {row['val_accuracy']:.3f}, "
                f"{row['seconds']:.1f} s",
                stderr=True,
            )

        def phase_ended(self, result: Mapping[str, Any]) -> None:
            test = result["test"]
            low, high = test["ci95"]
            interval = f"{test['accuracy']:.3f} ({low:.3f} – {high:.3f})"
            say(f"{result['name']}: {interval} on {test['n']:,} test images")

        def note(self, text: str) -> None:
            say(text, style="yellow", stderr=True)

    return Shown()
