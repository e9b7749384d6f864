"""Gives a run a folder of its own: one process at a time, numbered unless named."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from tlkit.errors import RunFolderError
from tlkit.experiment.run_folder import RunFolder
from tlkit.recipe.recipe import Recipe
from tlkit.runtime.distributed import broadcast_from_main, process_state
from tlkit.utils.atomic_write import UNFINISHED, remove_unfinished
from tlkit.utils.json_files import read_text

LOCK = ".lock"


@contextmanager
def open_run_folder(recipe: Recipe, out: Path | None) -> Iterator[RunFolder]:
    """Opens the folder of a run, for this run alone until the block ends.

    Args:
        recipe: the recipe.
        out: the folder; None: ``runs/<name>/<number>``, the last one if it is this recipe's and unfinished,
            else a new one.

    Raises:
        RunFolderError: another process uses the folder, or it has other content or cannot be written.
    """
    own = _lock_first(recipe, out) if process_state().is_main_process else None
    path = broadcast_from_main(own.path if own else Path())
    try:
        yield RunFolder(path)
    finally:
        if own is not None:
            own.release()


def next_folders(recipe: Recipe) -> Iterator[Path]:
    """Yields the numbered folders that a run may use, the preferred one first."""
    parent = Path("runs") / recipe.name
    names = [path.name for path in parent.iterdir()] if parent.is_dir() else []
    number = max((int(name) for name in names if name.isdecimal()), default=0)
    last = parent / str(number)
    file = last / "recipe.toml"
    is_same = file.is_file() and recipe.is_same_as(read_text(file, RunFolderError))
    if is_same and not RunFolder(last).is_finished():
        yield last
    while True:
        number += 1
        yield parent / str(number)


@dataclass(frozen=True)
class _OwnFolder:
    """A folder that this process has locked, and those of it and its parents that it has made."""

    path: Path
    lock: FileLock
    made: list[Path]

    def release(self) -> None:
        """Lets other processes use it; one in which no run has begun, such as after a mistake, is removed."""
        self.lock.release()
        if not (self.path / "recipe.toml").exists():
            with suppress(OSError):  # it is not empty
                (self.path / LOCK).unlink()
                for folder in self.made:
                    folder.rmdir()


def _lock_first(recipe: Recipe, out: Path | None) -> _OwnFolder:
    """Locks the first folder that no other process uses."""
    for path in next_folders(recipe) if out is None else [out]:
        made = [folder for folder in (path, *path.parents) if not folder.exists()]
        try:
            _check_content(path)
            path.mkdir(parents=True, exist_ok=True)
            lock = FileLock(path / LOCK)
            lock.acquire(timeout=0)
        except Timeout:
            continue
        except OSError as error:
            reason = error.strerror or error
            raise RunFolderError(f"the run folder {path} cannot be written: {reason}") from error
        remove_unfinished(path)
        return _OwnFolder(path, lock, made)
    raise RunFolderError(f"{out} is in use by another tlkit: wait until it has ended, or name another --out")


def _check_content(path: Path) -> None:
    """Raises RunFolderError if a folder holds something other than a run."""
    if not path.is_dir() or (path / "recipe.toml").is_file():
        return
    # a process that was killed at once leaves no more than this
    if any(file.name != LOCK and not file.name.endswith(UNFINISHED) for file in path.iterdir()):
        raise RunFolderError(f"{path} is not empty and holds no run: name another --out")
