"""`tlkit tune`: chooses settings of a recipe's head and training on cached features."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tlkit.cli.console import json_line, say, table
from tlkit.cli.options import DeviceOption, RecipeArgument, SetOption, read_recipe_file

if TYPE_CHECKING:
    from tlkit.analysis.tune import Tuning

#: How many trials are shown.
SHOWN = 5


def tune(
    recipe: RecipeArgument,
    space: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUES",
            help="What to choose from: head.dropout=0:0.8, training.optimizer.lr=1e-5:1e-2:log, "
            "head.name=linear,probe; may be given several times.",
        ),
    ] = None,
    trials: Annotated[int, typer.Option(min=1, help="Number of settings to try.")] = 100,
    phase: Annotated[
        str | None, typer.Option(help="The phase to tune; the last one with a frozen backbone unless given.")
    ] = None,
    set_: SetOption = None,
    out: Annotated[
        Path | None, typer.Option(help="The folder of the search; runs/NAME/tuned unless given.")
    ] = None,
    json_: Annotated[bool, typer.Option("--json", help="One JSON object, as in tuning.json.")] = False,
    device: DeviceOption = None,
) -> None:
    """Choose settings of a recipe's head and training, by cross-validation on cached features."""
    drafted = read_recipe_file(recipe, set_)
    from tlkit.analysis.tune import tune as search
    from tlkit.cli.observer import ConsoleObserver
    from tlkit.reporting.tuning_section import write_charts

    result = search(
        drafted,
        space=space or (),
        trials=trials,
        phase=phase,
        out=out,
        device=device,
        observer=ConsoleObserver(),
    )
    write_charts(result)
    if json_:
        json_line(result.model_dump(mode="json", by_alias=True))
        return
    print_tuning(result)


def print_tuning(result: Tuning) -> None:
    """Prints the best trials, what to expect of the best one, and how to train it."""
    # settings that were tried again have the same outcome
    different = {trial.describe(): trial for trial in reversed(result.trials)}.values()
    ranked = sorted(different, key=lambda trial: (-trial.score, trial.number))
    rows = [
        (str(trial.number), f"{trial.accuracy:.3f}", f"{trial.log_loss:.4f}", trial.describe())
        for trial in ranked[:SHOWN]
    ]
    table(None, ("trial>", "accuracy>", "log loss>", "settings"), rows)
    for sentence in result.sentences():
        say(sentence, hanging=2)
    folder = shlex.quote(result.folder)
    say(f"{folder}/recipe.toml has these settings: tlkit run {folder} --out {folder} trains with them")
