"""`tlkit cache`: what is stored between runs."""

from __future__ import annotations

import datetime
import shutil
from pathlib import Path
from typing import Annotated

import typer

from tlkit.cli.console import say, table
from tlkit.utils.directories import download_folder, generated_folder, is_own
from tlkit.utils.formatting import format_bytes

#: What is stored beside features, and the functions that return its folder.
OTHER_FOLDERS = {"generated images": generated_folder, "unfinished downloads": download_folder}

app = typer.Typer(help="List or remove cached features and generated images.", no_args_is_help=True)


@app.command("list")
def list_() -> None:
    """List the cached features, longest unused first."""
    from tlkit.feature_store.store import FeatureStore, cache_limit

    store = FeatureStore()
    columns = store.columns()
    rows = [
        (
            column.key[:12],
            format_bytes(column.size),
            f"{datetime.datetime.fromtimestamp(column.used):%Y-%m-%d %H:%M}",
        )
        for column in columns
    ]
    if rows:
        table(None, ["features", "size>", "last used"], rows)
    total = sum(column.size for column in columns)
    say(f"{len(rows)} in {store.folder}: {format_bytes(total)} of {format_bytes(cache_limit())}")
    for content, folder in OTHER_FOLDERS.items():
        say(f"{content}, in {folder()}: {format_bytes(_size(folder()))}")


@app.command()
def prune(
    limit: Annotated[
        str | None, typer.Option(help="Such as 5GB; TLKIT_CACHE_LIMIT, or 20GB, unless given.")
    ] = None,
) -> None:
    """Remove the longest unused features until the rest is within the limit."""
    from tlkit.feature_store.store import FeatureStore, cache_limit

    freed = FeatureStore().prune(cache_limit(limit))
    say(f"freed {format_bytes(freed)}")


@app.command()
def clear() -> None:
    """Remove everything; features and images are made again when they are needed."""
    from tlkit.feature_store.store import FeatureStore

    store = FeatureStore()
    freed = store.prune(0)
    left = [f"{store.folder}: used by a run, or not made by tlkit"] if store.columns() else []
    for folder in (folder() for folder in OTHER_FOLDERS.values()):
        if is_own(folder):
            freed += _size(folder)
            shutil.rmtree(folder, ignore_errors=True)
        elif folder.exists():
            left.append(f"{folder}: not made by tlkit")
    say(f"freed {format_bytes(freed)}")
    for text in left:
        say(f"left {text}")


def _size(folder: Path) -> int:
    """Returns the size of a folder's files in bytes."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
