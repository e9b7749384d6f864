"""`tlkit fetch`: downloads what a recipe needs and this machine lacks."""

from __future__ import annotations

from tlkit.cli.console import say
from tlkit.cli.options import RecipeArgument, SetOption, read_recipe_file
from tlkit.utils.connectivity import check_ahead, hub_url
from tlkit.utils.formatting import bulleted, plural

#: How many images that cannot be read are listed.
LISTED = 20


def fetch(
    recipe: RecipeArgument,
    set_: SetOption = None,
) -> None:
    """Download the images and weights that a recipe needs and this machine lacks."""
    drafted = read_recipe_file(recipe, set_)
    check_ahead(hub_url())  # a timeout takes as long as importing torch
    from tlkit.cli.observer import ConsoleObserver
    from tlkit.experiment.fetch import fetch as fetch_recipe

    fetched = fetch_recipe(drafted, observer=ConsoleObserver())
    where = f"in {fetched.root}" if fetched.root else "generated when they are needed"
    say(f"images: {fetched.images:,} {where}{'' if fetched.fetched else ', nothing to fetch'}")
    if fetched.unreadable:
        unreadable = [f"cannot be read: {name}: {reason}" for name, reason in fetched.unreadable]
        say(bulleted(f"{plural(len(unreadable), 'image')} cannot be used", unreadable, LISTED))
        say('data.on_unreadable = "skip" leaves them out of a run, and lists them')
    say(f"backbones that are ready: {', '.join(fetched.backbones)}")
