"""Opens tables with `datasets`, without using the network for what is on this machine."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import datasets

from tlkit import IMAGE_SUFFIXES, DataError, close_matches, generated_folder, hub_url, why_unreachable

Tables = dict[str, datasets.Dataset]
#: Files that only a folder written by save_to_disk has.
SAVED_FILES = ("dataset_dict.json", "state.json")


def read_tables(root: Path | None, hub: str | None) -> tuple[str, Tables]:
    """Opens the tables in `root`, or of the hub's data set `hub`; exactly one of the two must be given.

    Returns:
        How messages call them, and the tables by the name of their split.

    Raises:
        DataError: they do not exist or cannot be read.
    """
    if (root is None) == (hub is None):
        raise DataError("the source 'datasets' needs either a root or the option 'hub'")
    if root is not None:
        _must_exist(root)
        with _quiet(str(root)):
            return str(root), _local(root)
    assert hub is not None  # exactly one of the two is None
    return hub, _from_hub(hub)


def _must_exist(root: Path) -> None:
    if not root.exists():
        siblings = [path.name for path in root.parent.iterdir()] if root.parent.is_dir() else []
        raise DataError(f"{root} does not exist{close_matches(root.name, siblings)}")


def _local(root: Path) -> Tables:
    if root.is_file():
        if root.suffix.lower() != ".parquet":
            raise DataError(f"{root} is not a .parquet file: name one, or a folder")
        return _load("parquet", data_files=str(root))
    if any((root / name).is_file() for name in SAVED_FILES):
        return _by_split(datasets.load_from_disk(str(root)))
    if next(root.rglob("*.parquet"), None):
        return _load("parquet", data_dir=str(root))
    if any(path.suffix.lower() in IMAGE_SUFFIXES for path in root.rglob("*")):
        return _load("imagefolder", data_dir=str(root))
    raise DataError(f"{root} holds no .parquet files, no images, and nothing that save_to_disk wrote")


def _load(kind: str, **where: str) -> Tables:
    # datasets writes a copy that it can memory-map; it belongs where tlkit's own files can be cleared
    return _by_split(
        datasets.load_dataset(kind, cache_dir=str(generated_folder() / "datasets" / "tables"), **where)
    )


def _from_hub(name: str) -> Tables:
    reason = why_unreachable(f"{hub_url()}/datasets/{name}")
    with _quiet(name), _offline(reason is not None):
        try:
            return _by_split(datasets.load_dataset(name))
        except Exception as error:
            if reason is None:
                raise
            raise DataError(
                f"{name} is not on this machine, and {hub_url()} could not be reached ({reason}). "
                "If you have its folder, point data.root at it and leave 'hub' out"
            ) from error


def _by_split(tables: datasets.Dataset | datasets.DatasetDict) -> Tables:
    if isinstance(tables, datasets.Dataset):
        return {"train": tables}
    return {str(name): table for name, table in tables.items()}


@contextmanager
def _offline(offline: bool) -> Iterator[None]:
    """Restricts datasets to earlier downloads; it would try for long to reach a host that does not answer."""
    before = datasets.config.HF_HUB_OFFLINE
    datasets.config.HF_HUB_OFFLINE = offline or before
    try:
        yield
    finally:
        datasets.config.HF_HUB_OFFLINE = before


@contextmanager
def _quiet(where: str) -> Iterator[None]:
    """Hides the progress bars of datasets, and turns its errors into DataError."""
    bars = datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        yield
    except DataError:
        raise
    except Exception as error:  # datasets passes on whatever the libraries that it uses raise
        reason = " ".join(str(error.__cause__ or error).split())
        raise DataError(f"{where} cannot be read: {reason[:400]}") from error
    finally:
        if not bars:
            datasets.enable_progress_bars()
