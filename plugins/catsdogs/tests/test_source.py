"""The photos in both layouts, and the messages when they are missing."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import pytest
from PIL import Image
from tlkit_catsdogs.source import catsdogs

from tlkit import DataError, Sample, load_registry


def paint(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4), (200, 10, 10)).save(root / name)


def ids(samples: Iterable[Sample]) -> list[str]:
    return [sample.id for sample in samples]


def test_the_real_photos(real_photos: Path) -> None:
    source = catsdogs(real_photos)
    assert source.classes == ("cat", "dog")
    assert Counter(sample.label for sample in source.samples) == {0: 1700, 1: 1700}
    assert all(sample.id.startswith(source.classes[sample.label or 0]) for sample in source.samples)
    numbers = [int(sample.id.split(".")[1]) for sample in source.samples]
    assert numbers == [*range(1, 1001), *range(4001, 4701)] * 2
    assert source.samples[0] == Sample("cat.1.jpg", real_photos / "cat.1.jpg", 0)
    assert (list(source.unlabelled), {sample.split for sample in source.samples}) == ([], {None})


def test_microsofts_layout_from_either_folder(tmp_path: Path) -> None:
    paint(tmp_path / "PetImages", "Cat/10.jpg", "Cat/9.jpg", "Dog/0.jpg", "Dog/11702.jpg")
    (tmp_path / "PetImages" / "Cat" / "Thumbs.db").write_bytes(b"not a photo")
    (tmp_path / "readme[1].txt").write_text("not a photo either")
    names = ["Cat/9.jpg", "Cat/10.jpg", "Dog/0.jpg", "Dog/11702.jpg"]
    inside, outside = catsdogs(tmp_path / "PetImages"), catsdogs(tmp_path)
    assert ids(inside.samples) == names
    assert ids(outside.samples) == [f"PetImages/{name}" for name in names]
    for source in (inside, outside):
        assert [sample.label for sample in source.samples] == [0, 0, 1, 1]
        assert all(sample.path.is_file() for sample in source.samples)


def test_unlabelled_photos_in_numeric_order(tmp_path: Path) -> None:
    paint(tmp_path, "train/cat.0.jpg", "train/dog.0.jpg", "test1/10.jpg", "test1/9.jpg", "test1/1.jpg")
    source = catsdogs(tmp_path / "train", unlabelled=tmp_path / "test1")
    assert ids(source.unlabelled) == ["../test1/1.jpg", "../test1/9.jpg", "../test1/10.jpg"]
    assert {sample.label for sample in source.unlabelled} == {None}


def test_other_images_among_them_are_an_error_that_names_them(tmp_path: Path) -> None:
    paint(tmp_path, "cat.0.jpg", "dog.0.jpg", "bird.0.jpg", *(f"{number}.jpg" for number in range(1, 8)))
    with pytest.raises(DataError, match=r"8 images that are not named.*: 1\.jpg, 2\.jpg, .*5\.jpg …; move"):
        catsdogs(tmp_path)


@pytest.mark.parametrize(
    ("photos", "message"),
    [
        (["train/cat.0.jpg"], r"train holds no photos of dogs"),
        (["train/Cat/0.jpg"], r"train holds no photos of cats and dogs"),
    ],
)
def test_missing_photos(tmp_path: Path, photos: list[str], message: str) -> None:
    paint(tmp_path, *photos)
    with pytest.raises(DataError, match=message) as error:
        catsdogs(tmp_path / "train")
    for advice in ("--set data.root=PATH", "Kaggle's 'Dogs vs. Cats'", "kagglecatsanddogs_5340.zip"):
        assert advice in str(error.value)


def test_no_photos_yet(tmp_path: Path) -> None:
    for folder_exists in (False, True):
        if folder_exists:
            (tmp_path / "train").mkdir()
        source = catsdogs(tmp_path / "train")
        assert (source.classes, len(source), len(source.downloads)) == (("cat", "dog"), 0, 1)


def test_an_empty_class_folder(tmp_path: Path) -> None:
    paint(tmp_path, "Cat/0.jpg")
    (tmp_path / "Dog").mkdir()
    with pytest.raises(DataError, match=r"Dog holds no photos: point data.root"):
        catsdogs(tmp_path)


def test_missing_unlabelled_photos(tmp_path: Path) -> None:
    paint(tmp_path, "train/cat.0.jpg", "train/dog.0.jpg")
    with pytest.raises(
        DataError, match=r"test1, for the unlabelled photos, is not a folder: .*leave data.unlabelled out"
    ):
        catsdogs(tmp_path / "train", unlabelled=tmp_path / "test1")
    (tmp_path / "test1").mkdir()
    with pytest.raises(DataError, match=r"test1 holds no photos: point data.unlabelled"):
        catsdogs(tmp_path / "train", unlabelled=tmp_path / "test1")


def test_the_download(tmp_path: Path) -> None:
    (download,) = catsdogs(tmp_path).downloads
    assert download.url.startswith("https://download.microsoft.com/download/3/E/1/3E1C3F21-")
    assert (download.size, len(download.sha256)) == (824887076, 64)


def test_all_parts_are_registered(photos: Path) -> None:
    registry = load_registry()
    assert len(registry.make("source", "catsdogs", {}, photos)) >= 300
    assert len(registry.make("source", "drawn", {"per_class": 2})) == 4
    assert registry.make("backbone", "convnet3", {}).feature_shape == (64, 17, 17)
    assert registry.make("backbone", "vgg16-quarter", {}).feature_shape == (128, 4, 4)


def test_importing_the_plugin_does_not_import_torch() -> None:
    code = "import sys, tlkit_catsdogs; sys.exit('torch' in sys.modules or 'PIL' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_only_sources_that_make_their_images_need_no_root() -> None:
    registry = load_registry()
    assert {name: registry.needs_root(name) for name in ("folder", "csv", "catsdogs", "drawn")} == {
        "folder": True,
        "csv": True,
        "catsdogs": True,
        "drawn": False,
    }
