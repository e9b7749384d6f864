"""`tlkit manifest`: lists the images of a recipe in a Parquet file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from tlkit.cli.console import say
from tlkit.cli.options import RecipeArgument, SetOption, read_recipe_file
from tlkit.utils.formatting import plural


def manifest(
    recipe: RecipeArgument,
    set_: SetOption = None,
    out: Annotated[Path, typer.Option(help="The Parquet file to write.")] = Path("manifest.parquet"),
) -> None:
    """List the images of a recipe with their labels, splits and hashes in a Parquet file."""
    drafted = read_recipe_file(recipe, set_)
    from tlkit.cli.observer import ConsoleObserver
    from tlkit.experiment.manifest import manifest as write

    written = write(drafted, out=out, observer=ConsoleObserver())
    say(f"{written.file}: {plural(written.images, 'image')}. A recipe reads it with")
    file, root = (json.dumps(path.absolute().as_posix()) for path in (written.file, written.root))
    say(f'data = {{ source = {{ name = "parquet", file = {file} }}, root = {root} }}')
