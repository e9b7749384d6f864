"""`tlkit run`: runs a recipe, from its plan to its results."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from tlkit.cli.console import say
from tlkit.cli.options import (
    DeviceOption,
    EngineOption,
    OutOption,
    RecipeArgument,
    ReportOption,
    SetOption,
    read_recipe_file,
)
from tlkit.cli.results_text import print_results

if TYPE_CHECKING:
    from tlkit.experiment.observer import Observer, Run


def run(
    recipe: RecipeArgument,
    set_: SetOption = None,
    out: OutOption = None,
    phase: Annotated[
        list[str] | None, typer.Option(help="Run only this phase; may be given several times.")
    ] = None,
    engine: EngineOption = None,
    device: DeviceOption = None,
    plan: Annotated[bool, typer.Option("--plan", help="Show the plan and stop.")] = False,
    report: ReportOption = True,
) -> None:
    """Run a recipe, or resume a run that was interrupted."""
    drafted = read_recipe_file(recipe, set_, engine)
    from tlkit.cli.observer import print_run_plan, watching
    from tlkit.experiment.runner import run as run_recipe
    from tlkit.runtime.distributed import process_state

    with watching() as observer:
        finished = run_recipe(
            drafted,
            out=out,
            phases=phase or (),
            device=device,
            observer=observer,
            plan_only=plan,
        )
        if not process_state().is_main_process:
            return
        if plan:
            print_run_plan(finished)
            return
        say()
        print_results(finished.results)
        warn_of_copies(finished, observer)
        say(str(finished.folder))
        if report:
            make_report(finished, observer, device)


def warn_of_copies(finished: Run, observer: Observer) -> None:
    """Warns of copies in different splits or folds, of those that are found at little cost."""
    from tlkit.analysis.leaks import describe_leaks, find_leaks

    if finished.features is not None and (leaks := find_leaks(finished.features)):
        observer.note(describe_leaks(leaks, finished))


def make_report(finished: Run, observer: Observer, device: str | None) -> None:
    """Makes the report of a finished run, unless there is one of its results, and prints its path."""
    from tlkit.reporting.page import report

    page, results = finished.folder / "report.html", finished.folder / "results.json"
    if not page.is_file() or page.stat().st_mtime < results.stat().st_mtime:
        report(finished, observer=observer, device=device)
    say(str(page))
