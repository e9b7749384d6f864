"""`tlkit features`: the frozen pass alone, or a part of it."""

from __future__ import annotations

from typing import Annotated

import typer

from tlkit.cli.console import say
from tlkit.cli.options import DeviceOption, EngineOption, RecipeArgument, SetOption, read_recipe_file
from tlkit.utils.formatting import format_duration


def features(
    recipe: RecipeArgument,
    set_: SetOption = None,
    shard: Annotated[
        str | None,
        typer.Option(metavar="I/N", help="Compute part I of N of the images, such as 1/8; all unless given."),
    ] = None,
    engine: EngineOption = None,
    device: DeviceOption = None,
) -> None:
    """Compute and store the features that a run of a recipe will read."""
    drafted = read_recipe_file(recipe, set_, engine)
    from tlkit.cli.observer import watching
    from tlkit.experiment.compute_features import compute_features
    from tlkit.runtime.distributed import process_state

    with watching() as observer:
        done = compute_features(drafted, shard=shard, device=device, observer=observer)
    if not process_state().is_main_process:
        return
    part = f" in part {shard}" if shard else ""
    say(
        f"image views{part}: {done.views:,}, of which {done.computed:,} were computed, "
        f"in {format_duration(done.seconds)}, and {done.views - done.computed:,} were in {done.folder}",
        hanging=2,
    )
    if done.later:
        say(
            f"not computed: what {', '.join(done.later)} reads depends on what is trained before; "
            "tlkit run computes it",
            hanging=2,
        )
