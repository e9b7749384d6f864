"""The built-in source of class folders, with real images."""

from __future__ import annotations

from pathlib import Path

import pytest
from source_files import draw, ids, table

from tlkit.builtin.csv_file import csv_file
from tlkit.builtin.sources import find_images, folder, natural
from tlkit.errors import DataError
from tlkit.plugins.loader import load_registry


def test_a_folder_per_class(tmp_path: Path) -> None:
    draw(tmp_path, "dog/dog.10.png", "dog/dog.2.PNG", "cat/a/b/1.jpeg", "cat/0.webp")
    source = folder(tmp_path)
    assert source.classes == ("cat", "dog")
    assert ids(source.samples) == ["cat/0.webp", "cat/a/b/1.jpeg", "dog/dog.2.PNG", "dog/dog.10.png"]
    assert [sample.label for sample in source.samples] == [0, 0, 1, 1]
    assert {sample.split for sample in source.samples} == {None}
    assert source.samples[0].path == tmp_path / "cat" / "0.webp"
    assert (list(source.unlabelled), list(source.downloads)) == ([], [])


def test_classes_and_images_are_in_natural_order(tmp_path: Path) -> None:
    draw(tmp_path, "class 10/1.png", "class 9/1.png", "Class 1/1.png")
    assert folder(tmp_path).classes == ("Class 1", "class 9", "class 10")
    assert sorted(["b", "a10", "A9", "a9", "10", "9"], key=natural) == ["9", "10", "A9", "a9", "a10", "b"]


@pytest.mark.parametrize("val", ["val", "valid", "validation", "Val"])
def test_splits_above_the_classes(tmp_path: Path, val: str) -> None:
    names = [f"{split}/{name}/1.png" for split in ("train", val, "test") for name in ("cat", "dog")]
    draw(tmp_path, *names)
    source = folder(tmp_path)
    assert source.classes == ("cat", "dog")
    assert {sample.id: sample.split for sample in source.samples} == {
        name: "val" if name.startswith(val) else name.split("/")[0] for name in names
    }


def test_hidden_files_and_other_files_are_ignored(tmp_path: Path) -> None:
    draw(tmp_path, "cat/1.png", "dog/1.png", ".hidden/1.png", "__MACOSX/cat/1.png", "cat/._1.png")
    draw(tmp_path, "cat/.thumbs/1.png")
    (tmp_path / "cat" / "Thumbs.db").touch()
    (tmp_path / "cat" / "notes.txt").touch()
    assert ids(folder(tmp_path).samples) == ["cat/1.png", "dog/1.png"]


def test_photos_that_cannot_be_read_are_listed(tmp_path: Path) -> None:
    """A run reports them; if they were ignored here, nobody would miss them."""
    draw(tmp_path, "cat/1.png", "dog/1.png")
    for name in ("2.NEF", "3.heic", "4.svg"):
        (tmp_path / "cat" / name).touch()
    assert ids(folder(tmp_path).samples)[:-1] == ["cat/1.png", "cat/2.NEF", "cat/3.heic", "cat/4.svg"]


def test_links_are_followed_but_not_in_circles(tmp_path: Path) -> None:
    draw(tmp_path, "other/1.png", "data/dog/1.png", "more/2.png")
    data = tmp_path / "data"
    (data / "cat").mkdir()
    (data / "cat" / "1.png").symlink_to(tmp_path / "other" / "1.png")
    (data / "cat" / "more").symlink_to(tmp_path / "more")
    (data / "cat" / "round").symlink_to(data / "cat")
    assert ids(folder(data).samples) == ["cat/1.png", "cat/more/2.png", "dog/1.png"]


def test_a_link_to_nothing_is_listed_for_the_reader_to_report(tmp_path: Path) -> None:
    (tmp_path / "1.png").symlink_to(tmp_path / "gone.png")
    assert find_images(tmp_path) == [tmp_path / "1.png"]


def test_a_folder_that_cannot_be_read_is_not_overlooked(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="gone cannot be read: No such file"):
        find_images(tmp_path / "gone")


def test_unlabelled_images_inside_and_outside(tmp_path: Path) -> None:
    draw(tmp_path, "data/cat/1.png", "data/dog/1.png", "data/new/2.png", "data/new/10.png", "test1/1.png")
    inside = folder(tmp_path / "data", unlabelled=tmp_path / "data" / "new")
    assert inside.classes == ("cat", "dog")
    assert ids(inside.unlabelled) == ["new/2.png", "new/10.png"]
    assert inside.unlabelled[0].label is None
    table(tmp_path / "data", ["path,label", "cat/1.png,cat", "dog/1.png,dog"])
    for outside in (
        folder(tmp_path / "data", unlabelled=tmp_path / "test1").unlabelled,
        csv_file(tmp_path / "data", unlabelled=tmp_path / "test1").unlabelled,
    ):
        assert ids(outside) == ["../test1/1.png"]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ([], "no classes: it needs a folder per class"),
        (["1.png"], "no classes: it needs a folder per class"),
        (["cat/1.png"], "only one class, 'cat': it needs a folder per class, at least two"),
        (["cat/1.png", "dog/1.txt", "emu/a/1.txt"], "class folders without images: .*\n  - .*dog\n  - .*emu"),
        (["train/1.png", "test/1.png"], "test, train contain no class folders"),
        (
            ["train/cat/1.png", "train/dog/1.png", "test/1.png"],
            r"split folders \(train\) and others \(test\)",
        ),
        (["train/a/1.png", "val/a/1.png", "valid/a/1.png"], "val and valid are the same split"),
        (
            ["train/cat/1.png", "train/dog/1.png", "val/cat/1.png"],
            "every split needs every class\n  - val has no images of class 'dog'",
        ),
    ],
)
def test_folders_that_cannot_be_used(tmp_path: Path, files: list[str], message: str) -> None:
    draw(tmp_path, *files)
    with pytest.raises(DataError, match=message):
        folder(tmp_path)


def test_a_missing_folder_gets_its_siblings_suggested(tmp_path: Path) -> None:
    draw(tmp_path, "images/cat/1.png")
    with pytest.raises(DataError, match=r"imgaes does not exist \(did you mean 'images'\?\)"):
        folder(tmp_path / "imgaes")
    with pytest.raises(DataError, match=r"1.png is a file: name the folder"):
        folder(tmp_path / "images" / "cat" / "1.png")
    with pytest.raises(DataError, match=r"a/b does not exist$"):
        folder(tmp_path / "a" / "b")
    draw(tmp_path, "images/dog/1.png")
    with pytest.raises(DataError, match="none does not exist"):
        folder(tmp_path / "images", unlabelled=tmp_path / "none")


def test_an_empty_unlabelled_folder(tmp_path: Path) -> None:
    draw(tmp_path, "cat/1.png", "dog/1.png")
    (tmp_path / "new").mkdir()
    with pytest.raises(DataError, match="new holds no images"):
        folder(tmp_path, unlabelled=tmp_path / "new")


def test_a_folder_without_class_folders_says_that_it_has_a_csv_file(tmp_path: Path) -> None:
    draw(tmp_path, "1.png", "2.png")
    table(tmp_path, ["path,label", "1.png,cat", "2.png,dog"])
    with pytest.raises(DataError, match=r"no classes: .*; or name its labels\.csv instead"):
        folder(tmp_path)


def test_it_is_registered_as_a_part(tmp_path: Path) -> None:
    draw(tmp_path, "cat/1.png", "dog/1.png", "new/1.png")
    registry = load_registry(["tlkit.builtin.sources"])
    source = registry.make("source", "folder", {"unlabelled": str(tmp_path / "new")}, tmp_path)
    assert ids(source.unlabelled) == ["new/1.png"]
