"""What all tests share: photos, real weights, a cache of their own.

`../shared` holds real photos and real pretrained weights. Where it is not there, as in any clone but
the project's own, drawn animals stand for the photos, and what needs the weights is skipped.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from tlkit_catsdogs.drawn.world import draw

import tlkit

SHARED = Path(__file__).parents[1] / "shared"
#: How many images of each class stand for the photos.
STAND_INS = 150


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A feature store for this test alone."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("TLKIT_CACHE", str(folder))
    return folder


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos of cats and dogs in Kaggle's flat layout: real ones, or drawn images in their place."""
    real = SHARED / "catsdogs-photos" / "train"
    if real.is_dir():
        return real
    folder = tmp_path_factory.mktemp("drawn") / "train"
    folder.mkdir()
    for number in range(2 * STAND_INS):
        name = f"{('cat', 'dog')[number % 2]}.{number // 2 + 1}.jpg"
        (folder / name).write_bytes(draw("street", 1, number))
    return folder


@pytest.fixture(scope="session")
def real_photos(photos: Path) -> Path:
    """Photos that a camera took."""
    if not photos.is_relative_to(SHARED):
        pytest.skip(f"the real photos, {SHARED / 'catsdogs-photos'}, are not there")
    return photos


@pytest.fixture(scope="session")
def weights() -> Path:
    """Real ImageNet weights of mobilenetv2_100 in timm's folder format."""
    folder = SHARED / "weights" / "mobilenetv2_100"
    if not folder.is_dir():
        pytest.skip(f"the real weights, {folder}, are not there")
    return folder


@pytest.fixture
def few_photos(photos: Path, tmp_path: Path) -> Path:
    """Fifteen photos of each class, copied so that a test may change them."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for kind in ("cat", "dog"):
        for number in range(1, 16):
            shutil.copyfile(photos / f"{kind}.{number}.jpg", folder / f"{kind}.{number}.jpg")
    return folder


@pytest.fixture(scope="session")
def by_class(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty photos of each class, in a folder per class."""
    folder = tmp_path_factory.mktemp("by-class")
    for kind in ("cat", "dog"):
        (folder / kind).mkdir()
        for number in range(1, 41):
            shutil.copyfile(photos / f"{kind}.{number}.jpg", folder / kind / f"{number}.jpg")
    return folder


@pytest.fixture(scope="session")
def fitted(by_class: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of a classifier of those, with a small backbone that needs no download."""
    folder = tmp_path_factory.mktemp("fitted") / "run"
    return tlkit.fit(by_class, backbone="vgg16-quarter", epochs=4, out=folder).folder
