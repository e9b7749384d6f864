"""`tlkit cache`: what is kept between runs."""

from __future__ import annotations

import datetime
import shutil
from typing import Annotated

import typer

from tlkit.cli.console import say, size, table
from tlkit.folders import made_folder

app = typer.Typer(help="Kept features and made images: list them, or make room.", no_args_is_help=True)


@app.command("list")
def list_() -> None:
    """What is kept, longest unused first."""
    from tlkit.features.store import FeatureStore, cache_limit

    store = FeatureStore()
    columns = store.columns()
    rows = [
        (info.key[:12], size(info.bytes), f"{datetime.datetime.fromtimestamp(info.used):%Y-%m-%d %H:%M}")
        for info in columns
    ]
    if rows:
        table(None, ["features", "size>", "last used"], rows)
    total = sum(info.bytes for info in columns)
    say(f"{len(rows)} in {store.folder}: {size(total)} of {size(cache_limit())}")
    say(f"images that sources made, in {made_folder()}: {size(_made())}")


@app.command()
def prune(
    limit: Annotated[str | None, typer.Option(help="Such as 5GB; TLKIT_CACHE_LIMIT unless given.")] = None,
) -> None:
    """Remove the longest unused features until the limit is kept."""
    from tlkit.features.store import FeatureStore, cache_limit

    freed = FeatureStore().prune(cache_limit(limit))
    say(f"freed {size(freed)}")


@app.command()
def clear() -> None:
    """Remove all kept features and made images; they are made again when they are needed."""
    from tlkit.features.store import FeatureStore

    freed = FeatureStore().prune(0) + _made()
    shutil.rmtree(made_folder(), ignore_errors=True)
    say(f"freed {size(freed)}")


def _made() -> int:
    """Bytes of images that sources made."""
    return sum(path.stat().st_size for path in made_folder().rglob("*") if path.is_file())
