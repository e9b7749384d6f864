"""What a recipe needs and this machine does not have: images to download, pretrained weights."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from filelock import FileLock, Timeout

from tlkit.components import Download
from tlkit.data.batches import threads
from tlkit.data.downloads import download, unpack
from tlkit.data.images import inspect
from tlkit.errors import FetchError, RecipeError, TlkitError
from tlkit.folders import download_folder
from tlkit.observer import Observer
from tlkit.planning import find_source
from tlkit.plugins import Registry, load_registry
from tlkit.reaching import ask_ahead
from tlkit.recipe import Recipe, read_recipe


@dataclass(frozen=True)
class Fetched:
    """What a recipe needs, now that it is here.

    Attributes:
        root: where the images are; None where the source makes them itself.
        images: how many there are.
        fetched: whether they were downloaded now.
        unreadable: (id, reason) of images that were downloaded now and cannot be used.
        backbones: names of the backbones, each of which has all that it needs.
    """

    root: Path | None
    images: int
    fetched: bool
    unreadable: tuple[tuple[str, str], ...]
    backbones: tuple[str, ...]


def fetch(
    recipe: Recipe | Path | str,
    *,
    set: Mapping[str, Any] | Sequence[str] = (),
    observer: Observer | None = None,
    registry: Registry | None = None,
) -> Fetched:
    """Gets what a recipe needs and does not have: its source's downloads, its backbones' weights.

    Args:
        recipe: a recipe, its file, or a folder that holds ``recipe.toml``.
        set: keys to change, as for `tlkit.run`.
        observer: watches the work.
        registry: the parts to choose from; all that is installed unless given.

    Raises:
        FetchError: everything that could not be had, and what to do instead.
        RecipeError: the recipe cannot be run as it is.
    """
    if not isinstance(recipe, Recipe):
        recipe = read_recipe(Path(recipe), set)
    registry, observer = registry or load_registry(), observer or Observer()
    if wrong := recipe.data_problems(registry):
        raise RecipeError(wrong, recipe=str(recipe.path or recipe.name))
    assert recipe.data is not None  # a recipe without flaws has it
    source, fetched = find_source(recipe.data, registry), False
    wanted = [] if source or recipe.data.root is None else list(source.downloads)
    for item in wanted:
        ask_ahead(item.url)
    problems: list[str] = []
    backbones = _weights(recipe, registry, problems)
    unreadable: list[tuple[str, str]] = []
    if wanted and recipe.data.root is not None:
        try:
            _images(wanted, recipe.data.root, observer)
        except FetchError as error:
            problems.append(
                f"data: {error}. Have the images already? Point data.root at them: --set data.root=PATH. "
                f"They would go to {recipe.data.root}"
            )
        else:
            source, fetched = find_source(recipe.data, registry), True
            with observer.working("reading images", len(source), "images") as tick:
                _, unreadable = inspect([*source.samples, *source.unlabelled], threads=threads(), tick=tick)
    if problems:
        raise FetchError("\n".join(["not all could be fetched", *(f"  - {problem}" for problem in problems)]))
    return Fetched(recipe.data.root, len(source), fetched, tuple(unreadable), tuple(backbones))


def _weights(recipe: Recipe, registry: Registry, problems: list[str]) -> list[str]:
    """Makes each backbone once, which gets its weights; names those that could be made."""
    outcomes: dict[str, str | None] = {}
    for phase in recipe.phases:
        table = phase.backbone.table()
        # the same weights serve features of either kind
        key = json.dumps({**table, "features": None}, sort_keys=True, default=str)
        if key in outcomes:
            continue
        try:
            registry.make("backbone", phase.backbone.name, phase.backbone.options)
            outcomes[key] = phase.backbone.name
        except TlkitError as error:
            outcomes[key] = None
            problems.append(f"phase.{phase.name}.backbone: {error}")
    return [name for name in dict.fromkeys(outcomes.values()) if name is not None]


def _images(wanted: Sequence[Download], root: Path, observer: Observer) -> None:
    downloads = download_folder()
    try:
        downloads.mkdir(parents=True, exist_ok=True)
        lock = FileLock(downloads.with_suffix(".lock")).acquire(timeout=0)
    except Timeout as error:
        raise FetchError(
            f"another process is fetching into {downloads}: try again when it is done"
        ) from error
    except OSError as error:
        raise FetchError(f"{downloads} cannot be written: {error.strerror or error}") from error
    with lock:
        archives = []
        for item in wanted:
            with observer.working(f"fetching from {urlsplit(item.url).netloc}", item.bytes, "bytes") as tick:
                archives.append((download(item, downloads, tick), item.unpack_to))
        with observer.working("unpacking", sum(item.bytes for item in wanted), "bytes") as tick:
            unpack(archives, root, tick)
        for archive, _ in archives:
            archive.unlink()
