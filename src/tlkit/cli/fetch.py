"""`tlkit fetch`: what a recipe needs and this machine does not have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tlkit.cli.console import say
from tlkit.cli.run import console_observer
from tlkit.utils.connectivity import check_ahead, hub_url

NAMED = 20


def fetch(
    recipe: Annotated[Path, typer.Argument(help="A recipe, or a folder that holds recipe.toml.")],
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change one key, as for run.")
    ] = None,
) -> None:
    """Get the images and weights that a recipe needs and this machine does not have."""
    check_ahead(hub_url())  # it takes as long to hear nothing as to load torch
    from tlkit.experiment.fetch import fetch as fetch_recipe

    done = fetch_recipe(recipe, set=set_ or (), observer=console_observer())
    where = f"in {done.root}" if done.root else "made when they are needed"
    say(f"images: {done.images:,} {where}{'' if done.fetched else ', nothing to fetch'}")
    for name, reason in done.unreadable[:NAMED]:
        say(f"  cannot be read: {name}: {reason}")
    if len(done.unreadable) > NAMED:
        say(f"  and {len(done.unreadable) - NAMED} more")
    if done.unreadable:
        say('  data.on_unreadable = "skip" leaves them out of a run, and lists them')
    say(f"backbones that are ready: {', '.join(done.backbones)}")
