"""`tlkit cache`: what is stored between runs."""

from __future__ import annotations

import datetime
from typing import Annotated

import typer

from tlkit.cli.console import say, table
from tlkit.utils.formatting import format_bytes

app = typer.Typer(help="List or remove cached features and generated images.", no_args_is_help=True)


@app.command("list")
def list_() -> None:
    """List the cached features, longest unused first."""
    from tlkit.feature_store.cache import list_cache

    cache = list_cache()
    rows = [
        (
            column.key[:12],
            format_bytes(column.size),
            f"{datetime.datetime.fromtimestamp(column.used):%Y-%m-%d %H:%M}",
        )
        for column in cache.columns
    ]
    if rows:
        table(None, ["features", "size>", "last used"], rows)
    say(f"{len(rows)} in {cache.folder}: {format_bytes(cache.size)} of {format_bytes(cache.limit)}")
    if cache.shared is not None:
        say(f"copies of features in {cache.shared}, which is not listed and has no limit")
    for other in cache.others:
        say(f"{other.content}, in {other.folder}: {format_bytes(other.size)}")


@app.command()
def prune(
    limit: Annotated[
        str | None, typer.Option(help="Such as 5GB; TLKIT_CACHE_LIMIT, or 20GB, unless given.")
    ] = None,
) -> None:
    """Remove the features that are unused for longest, until the rest is within the limit."""
    from tlkit.feature_store.cache import prune_cache

    say(f"freed {format_bytes(prune_cache(limit))}")


@app.command()
def clear() -> None:
    """Remove everything; features and images are made again when they are needed."""
    from tlkit.feature_store.cache import clear_cache

    cleared = clear_cache()
    say(f"freed {format_bytes(cleared.freed)}")
    for text in cleared.left:
        say(f"left {text}")
