"""Files and folders are written completely or not at all."""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from tlkit.utils.atomic_write import atomic_write, replaced_path


class Failed(Exception):
    """Raised in the middle of writing."""


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def write_folder(path: Path, text: str) -> None:
    """Writes a folder with two files of the same content."""
    with atomic_write(path) as temporary:
        temporary.mkdir()
        for name in ("a", "b"):
            (temporary / name).write_text(text)


def test_a_file_appears_when_it_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "file.txt"
    with atomic_write(path) as temporary:
        temporary.write_text("some")
        assert not path.exists()
        assert temporary.parent == path.parent, "a rename must not cross file systems"
        temporary.write_text("all of it")
    assert path.read_text() == "all of it"
    assert names(path.parent) == ["file.txt"]


@pytest.mark.skipif(os.name == "nt", reason="Windows has other permissions")
@pytest.mark.parametrize("mask", [0o022, 0o002, 0o077])
def test_other_users_may_read_what_safetensors_writes(mask: int, tmp_path: Path) -> None:
    before = os.umask(mask)
    try:
        with atomic_write(tmp_path / "a.safetensors") as temporary:
            save_file({"zeros": np.zeros(2)}, temporary)
        with atomic_write(tmp_path / "folder") as temporary:
            temporary.mkdir()
            save_file({"zeros": np.zeros(2)}, temporary / "a.safetensors")
    finally:
        os.umask(before)
    files = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert [stat.S_IMODE(file.stat().st_mode) for file in files] == [0o666 & ~mask] * 2


def test_a_file_is_replaced_in_one_step(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    path.write_text("old")
    with path.open() as reader:
        with atomic_write(path) as temporary:
            temporary.write_text("new")
            assert path.read_text() == "old"
        assert reader.read() == "old", "a reader that has opened the old file goes on reading it"
    assert path.read_text() == "new"
    assert names(tmp_path) == ["file.txt"]


def test_a_folder_appears_when_it_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "folder"
    with atomic_write(path) as temporary:
        temporary.mkdir()
        (temporary / "a").write_text("1")
        assert not path.exists()
    assert names(tmp_path) == ["folder"]
    assert names(path) == ["a"]


def test_a_folder_is_replaced_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "folder"
    write_folder(path, "old")
    (path / "c").write_text("of the old one only")
    write_folder(path, "new")
    assert names(tmp_path) == ["folder"]
    assert {file.name: file.read_text() for file in path.iterdir()} == {"a": "new", "b": "new"}


def begin_file(temporary: Path) -> None:
    temporary.write_text("half")


def begin_folder(temporary: Path) -> None:
    temporary.mkdir()
    (temporary / "a").write_text("half")
    (temporary / "below").mkdir()


@pytest.mark.parametrize("error", [Failed, KeyboardInterrupt], ids=lambda error: error.__name__)
@pytest.mark.parametrize(
    "begin", [begin_file, begin_folder, lambda _: None], ids=["file", "folder", "nothing"]
)
@pytest.mark.parametrize("old", ["file", "folder", "nothing"])
def test_an_exception_leaves_the_old_content_and_nothing_else(
    old: str, begin: Callable[[Path], object], error: type[BaseException], tmp_path: Path
) -> None:
    path = tmp_path / "written"
    if old == "file":
        path.write_text("old")
    elif old == "folder":
        write_folder(path, "old")
    with pytest.raises(error), atomic_write(path) as temporary:
        begin(temporary)
        raise error
    assert names(tmp_path) == ([] if old == "nothing" else ["written"])
    if old == "file":
        assert path.read_text() == "old"
    elif old == "folder":
        assert {file.name: file.read_text() for file in path.iterdir()} == {"a": "old", "b": "old"}


def test_a_block_that_writes_nothing_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    path.write_text("old")
    with pytest.raises(FileNotFoundError), atomic_write(path):
        pass
    assert path.read_text() == "old"


def test_a_file_does_not_replace_a_folder(tmp_path: Path) -> None:
    path = tmp_path / "folder"
    write_folder(path, "old")
    with pytest.raises(OSError), atomic_write(path) as temporary:
        temporary.write_text("a file")
    assert names(tmp_path) == ["folder"]
    assert (path / "a").read_text() == "old"


def test_a_parent_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError), atomic_write(tmp_path / "file" / "below.txt"):
        pytest.fail("there is nowhere to write to")


def test_a_folder_that_cannot_be_renamed_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "folder"
    write_folder(path, "old")
    rename = Path.rename

    def fail(self: Path, target: Path) -> Path:
        if self.name.endswith(".unfinished"):
            raise OSError("the disk is gone")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(OSError, match="the disk is gone"):
        write_folder(path, "new")
    assert names(tmp_path) == ["folder"]
    assert (path / "a").read_text() == "old"


def test_a_folder_left_by_a_killed_writer_is_removed_by_the_next(tmp_path: Path) -> None:
    """Killed between two renames: the old folder is at `replaced_path`, until another takes its place."""
    path = tmp_path / "folder"
    write_folder(replaced_path(path), "old")
    write_folder(path, "new")
    assert names(tmp_path) == ["folder"]
    assert (path / "a").read_text() == "new"


def test_several_threads_write_one_file(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    path.write_text("0" * 100_000)
    writing = threading.Event()
    seen: set[str] = set()

    def write(number: int) -> None:
        with atomic_write(path) as temporary:
            temporary.write_text(str(number) * 100_000)

    def read() -> None:
        while not writing.is_set():
            seen.add(path.read_text())

    reader = threading.Thread(target=read)
    reader.start()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, [number % 10 for number in range(200)]))
    writing.set()
    reader.join()
    seen.add(path.read_text())
    assert all(len(text) == 100_000 and len(set(text)) == 1 for text in seen), "no text is cut short or mixed"
    assert names(tmp_path) == ["file.txt"]


def test_several_threads_write_folders_side_by_side(tmp_path: Path) -> None:
    def write(number: int) -> None:
        write_folder(tmp_path / f"folder-{number % 8}", str(number))

    with ThreadPoolExecutor(8) as pool:
        for _ in range(10):
            list(pool.map(write, range(8)))
    assert names(tmp_path) == [f"folder-{number}" for number in range(8)]


def test_at_every_step_of_a_replacement_one_whole_folder_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "folder"
    write_folder(path, "old")
    rename = Path.rename
    steps = []

    def observe(self: Path, target: Path) -> Path:
        result = rename(self, target)
        whole = path if path.exists() else replaced_path(path)
        steps.append((whole.name, {file.name: file.read_text() for file in whole.iterdir()}))
        return result

    monkeypatch.setattr(Path, "rename", observe)
    write_folder(path, "new")
    assert steps == [("folder.replaced", {"a": "old", "b": "old"}), ("folder", {"a": "new", "b": "new"})]
