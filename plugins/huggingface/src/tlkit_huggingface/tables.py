"""Opening tables with `datasets`, without a look at the network for what is on this machine."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import datasets

from tlkit import IMAGE_SUFFIXES, DataError, close_matches, generated_folder, hub_url, why_unreachable

Tables = dict[str, datasets.Dataset]
#: What marks a folder that save_to_disk wrote.
SAVED = ("dataset_dict.json", "state.json")


def read_tables(root: Path | None, hub: str | None) -> tuple[str, Tables]:
    """Where they are, for messages, and the tables by the name of their split.

    Raises:
        DataError: there are none, or they cannot be read.
    """
    if (root is None) == (hub is None):
        raise DataError("the source 'datasets' needs either a root or the option 'hub'")
    if root is not None:
        _must_exist(root)
        with _quiet(str(root)):
            return str(root), _local(root)
    assert hub is not None  # one of the two is there
    return hub, _from_hub(hub)


def _must_exist(root: Path) -> None:
    if not root.exists():
        siblings = [each.name for each in root.parent.iterdir()] if root.parent.is_dir() else []
        raise DataError(f"{root} is not there{close_matches(root.name, siblings)}")


def _local(root: Path) -> Tables:
    if root.is_file():
        if root.suffix.lower() != ".parquet":
            raise DataError(f"{root} is no .parquet file: name one, or a folder")
        return _load("parquet", data_files=str(root))
    if any((root / name).is_file() for name in SAVED):
        found = datasets.load_from_disk(str(root))
        return _tables(found)
    if next(root.rglob("*.parquet"), None):
        return _load("parquet", data_dir=str(root))
    if any(each.suffix.lower() in IMAGE_SUFFIXES for each in root.rglob("*")):
        return _load("imagefolder", data_dir=str(root))
    raise DataError(f"{root} holds no .parquet files, no images, and nothing that save_to_disk wrote")


def _load(kind: str, **where: str) -> Tables:
    # datasets keeps a copy it can map into memory; it belongs where tlkit's own files can be cleared
    return _tables(
        datasets.load_dataset(kind, cache_dir=str(generated_folder() / "datasets" / "tables"), **where)
    )


def _from_hub(name: str) -> Tables:
    reason = why_unreachable(f"{hub_url()}/datasets/{name}")
    with _quiet(name), _offline(reason is not None):
        try:
            return _tables(datasets.load_dataset(name))
        except Exception as error:
            if reason is None:
                raise
            raise DataError(
                f"{name} is not on this machine, and {hub_url()} could not be reached ({reason}). "
                "Have it already? Point data.root at its folder and leave 'hub' out"
            ) from error


def _tables(found: datasets.Dataset | datasets.DatasetDict) -> Tables:
    if isinstance(found, datasets.Dataset):
        return {"train": found}
    return {str(name): table for name, table in found.items()}


@contextmanager
def _offline(wanted: bool) -> Iterator[None]:
    """Keeps datasets to what was downloaded before; it would try for long to reach what cannot be reached."""
    before = datasets.config.HF_HUB_OFFLINE
    datasets.config.HF_HUB_OFFLINE = wanted or before
    try:
        yield
    finally:
        datasets.config.HF_HUB_OFFLINE = before


@contextmanager
def _quiet(where: str) -> Iterator[None]:
    """Keeps datasets from drawing bars, and says in tlkit's words what it refuses."""
    bars = datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        yield
    except DataError:
        raise
    except Exception as error:  # it raises what the libraries below it do
        reason = " ".join(str(error.__cause__ or error).split())
        raise DataError(f"{where} cannot be read: {reason[:400]}") from error
    finally:
        if not bars:
            datasets.enable_progress_bars()
