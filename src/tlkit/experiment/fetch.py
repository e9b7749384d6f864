"""Fetches what a recipe needs and this machine lacks: images to download, pretrained weights."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from filelock import FileLock, Timeout

from tlkit.data.downloads import download, unpack
from tlkit.data.inspection import inspect_images
from tlkit.errors import FetchError, RecipeError, TlkitError
from tlkit.experiment.observer import Observer
from tlkit.experiment.sources import make_source
from tlkit.experiment.unreachable import describe_backbone_error
from tlkit.experiment.validation import source_problems
from tlkit.parts.source import Download
from tlkit.plugins.loader import load_registry
from tlkit.plugins.registry import Registry
from tlkit.recipe.recipe import Recipe, as_recipe
from tlkit.runtime.processors import reader_threads
from tlkit.utils.connectivity import check_ahead
from tlkit.utils.directories import download_folder
from tlkit.utils.formatting import bulleted


@dataclass(frozen=True)
class Fetched:
    """What a recipe needs, after it was fetched.

    Attributes:
        root: the folder of the images; None where the source generates them.
        images: the number of images.
        fetched: whether they were downloaded now.
        unreadable: (id, reason) of images that were downloaded now and cannot be used.
        backbones: names of the backbones, whose weights are all here.
    """

    root: Path | None
    images: int
    fetched: bool
    unreadable: tuple[tuple[str, str], ...]
    backbones: tuple[str, ...]


def fetch(
    recipe: Recipe | Path | str,
    *,
    overrides: Mapping[str, Any] | Sequence[str] = (),
    observer: Observer | None = None,
    registry: Registry | None = None,
) -> Fetched:
    """Fetches what a recipe needs and this machine lacks: its source's downloads, its backbones' weights.

    Args:
        recipe: a recipe, its file, or a folder that holds ``recipe.toml``.
        overrides: keys to set in a recipe that is read from a file, as for `tlkit.run`.
        observer: is shown progress.
        registry: the parts to choose from; all that is installed unless given.

    Raises:
        FetchError: everything that could not be fetched, and what to do instead.
        RecipeError: the recipe cannot be run as it is.
    """
    recipe = as_recipe(recipe, overrides)
    if recipe.flaws:
        raise RecipeError(recipe.flaws, recipe=recipe.label)
    registry, observer = registry or load_registry(), observer or Observer()
    if wrong := source_problems(recipe, registry):
        raise RecipeError(wrong, recipe=recipe.label)
    assert recipe.data is not None  # a recipe without flaws has it
    root = recipe.data.root
    source, fetched = make_source(recipe.data, registry, recipe.task), False
    missing = [] if source or root is None else list(source.downloads)
    for item in missing:
        check_ahead(item.url)
    problems: list[str] = []
    backbones = _fetch_weights(recipe, registry, problems)
    unreadable: list[tuple[str, str]] = []
    if missing and root is not None:
        try:
            _fetch_images(missing, root, observer)
        except FetchError as error:
            problems.append(
                f"data: {error}. Have the images already? Point data.root at them: --set data.root=PATH. "
                f"They would go to {root}"
            )
        else:
            source, fetched = make_source(recipe.data, registry, recipe.task), True
            samples = [*source.samples, *source.unlabelled]
            with observer.progress("reading images", len(source), "images") as tick:
                _, unreadable = inspect_images(samples, threads=reader_threads(), tick=tick)
    if problems:
        raise FetchError(bulleted("not everything could be fetched", problems))
    return Fetched(root, len(source), fetched, tuple(unreadable), tuple(backbones))


def _fetch_weights(recipe: Recipe, registry: Registry, problems: list[str]) -> list[str]:
    """Makes each backbone once, which fetches its weights; returns the names of those that could be made."""
    outcomes: dict[str, str | None] = {}
    for phase in recipe.phases:
        table = phase.backbone.table()
        # pooled features and maps need the same weights
        key = json.dumps({**table, "features": None}, sort_keys=True, default=str)
        if key in outcomes:
            continue
        try:
            registry.make("backbone", phase.backbone.name, phase.backbone.options)
            outcomes[key] = phase.backbone.name
        except TlkitError as error:
            outcomes[key] = None
            problem = describe_backbone_error(error, phase.backbone.name, registry)
            problems.append(f"phase.{phase.name}.backbone: {problem}")
    return [name for name in dict.fromkeys(outcomes.values()) if name is not None]


def _fetch_images(items: Sequence[Download], root: Path, observer: Observer) -> None:
    """Downloads archives into the cache folder, unpacks them to `root`, and removes them."""
    folder = download_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder.with_suffix(".lock")).acquire(timeout=0)
    except Timeout as error:
        raise FetchError(f"another process is fetching into {folder}: try again when it is done") from error
    except OSError as error:
        raise FetchError(f"{folder} cannot be written: {error.strerror or error}") from error
    with lock:
        archives = []
        for item in items:
            with observer.progress(f"fetching from {urlsplit(item.url).netloc}", item.size, "bytes") as tick:
                archives.append((download(item, folder, tick), item.unpack_to))
        with observer.progress("unpacking", sum(item.size for item in items), "bytes") as tick:
            unpack(archives, root, tick)
        for archive, _ in archives:
            archive.unlink()
