"""`tlkit cache`: what is kept between runs."""

from __future__ import annotations

import datetime
import shutil
from pathlib import Path
from typing import Annotated

import typer

from tlkit.cli.console import say, table
from tlkit.utils.directories import download_folder, generated_folder
from tlkit.utils.formatting import format_bytes

#: What is kept besides features.
OTHERS = {"images that sources made": generated_folder, "unfinished downloads": download_folder}

app = typer.Typer(help="Kept features and made images: list them, or make room.", no_args_is_help=True)


@app.command("list")
def list_() -> None:
    """What is kept, longest unused first."""
    from tlkit.features.store import FeatureStore, cache_limit

    store = FeatureStore()
    columns = store.columns()
    rows = [
        (
            info.key[:12],
            format_bytes(info.bytes),
            f"{datetime.datetime.fromtimestamp(info.used):%Y-%m-%d %H:%M}",
        )
        for info in columns
    ]
    if rows:
        table(None, ["features", "size>", "last used"], rows)
    total = sum(info.bytes for info in columns)
    say(f"{len(rows)} in {store.folder}: {format_bytes(total)} of {format_bytes(cache_limit())}")
    for what, folder in OTHERS.items():
        say(f"{what}, in {folder()}: {format_bytes(_bytes(folder()))}")


@app.command()
def prune(
    limit: Annotated[str | None, typer.Option(help="Such as 5GB; TLKIT_CACHE_LIMIT unless given.")] = None,
) -> None:
    """Remove the longest unused features until the limit is kept."""
    from tlkit.features.store import FeatureStore, cache_limit

    freed = FeatureStore().prune(cache_limit(limit))
    say(f"freed {format_bytes(freed)}")


@app.command()
def clear() -> None:
    """Remove all of it; features and images are made again when they are needed."""
    from tlkit.features.store import FeatureStore

    freed = FeatureStore().prune(0)
    for folder in OTHERS.values():
        freed += _bytes(folder())
        shutil.rmtree(folder(), ignore_errors=True)
    say(f"freed {format_bytes(freed)}")


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
