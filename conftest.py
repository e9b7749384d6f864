"""What all tests share: real photos, real weights, a cache of their own, small real networks."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

SHARED = Path(__file__).parents[1] / "shared"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A feature store for this test alone."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("TLKIT_CACHE", str(folder))
    return folder


@pytest.fixture(scope="session")
def photos() -> Path:
    """Real photos of cats and dogs in Kaggle's flat layout."""
    return SHARED / "catsdogs-photos" / "train"


@pytest.fixture(scope="session")
def weights() -> Path:
    """Real ImageNet weights of mobilenetv2_100 in timm's folder format."""
    return SHARED / "weights" / "mobilenetv2_100"


@pytest.fixture
def few_photos(photos: Path, tmp_path: Path) -> Path:
    """Fifteen real photos of each class, copied so that a test may change them."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for kind in ("cat", "dog"):
        for number in range(1, 16):
            shutil.copyfile(photos / f"{kind}.{number}.jpg", folder / f"{kind}.{number}.jpg")
    return folder
