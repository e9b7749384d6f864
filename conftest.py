"""What all tests share: photos, real weights, a cache of their own.

`../shared` holds real photos and real pretrained weights. Where it does not exist, as in any clone but
the project's own, drawn animals stand for the photos, and tests that need the weights or the data sets are
skipped.
"""

from __future__ import annotations

import gc
import os
import shutil
import signal
import tempfile
from pathlib import Path

# Before anything loads torch: the workers of pytest-xdist and the processes that tests start share the cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")
if "PYTEST_XDIST_WORKER" not in os.environ:
    # Processes that tests start compile torch and timm once, even where PYTHONDONTWRITEBYTECODE is set; the
    # next run of the tests compiles only what has changed.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    os.environ["PYTHONPYCACHEPREFIX"] = str(Path(__file__).parent / ".pytest_cache" / "bytecode")
    # For fixtures of a session or a module: they are made before `cache` is, for a test alone.
    os.environ["TLKIT_CACHE"] = tempfile.mkdtemp(prefix="tlkit-cache-")

import pytest
from drawings import draw as draw_labelled
from drawings import drawings_recipe
from made_once import made_once
from small_runs import two_phases
from tlkit_catsdogs.drawn.world import draw

import tlkit

# A shell lets what it starts in the background ignore Ctrl-C, and what that starts inherits it.
signal.signal(signal.SIGINT, signal.default_int_handler)

SHARED = Path(__file__).parents[1] / "shared"
SHARED_CACHE = os.environ["TLKIT_CACHE"]
#: How many images of each class stand for the photos.
STAND_INS = 150


def pytest_collection_finish() -> None:
    """Spares what is imported from garbage collection, a tenth of the tests' time otherwise."""
    gc.freeze()
    gc.set_threshold(10_000, 10, 10)


def pytest_unconfigure() -> None:
    """Removes the cache, when the workers have ended."""
    gc.unfreeze()  # libraries complain at the end of what is left
    if "PYTEST_XDIST_WORKER" not in os.environ:
        shutil.rmtree(os.environ["TLKIT_CACHE"], ignore_errors=True)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache folder, for this test alone."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("TLKIT_CACHE", str(folder))
    return folder


@pytest.fixture
def shared_cache(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cache of fixtures of a session or a module, in place of the test's own: it has their features."""
    monkeypatch.setenv("TLKIT_CACHE", SHARED_CACHE)


@pytest.fixture(autouse=True)
def few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets reports maximise for two steps only, since that takes long."""
    monkeypatch.setattr("tlkit.reporting.layers_section.MAXIMIZATION_STEPS", 2)


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos of cats and dogs in Kaggle's flat layout: real ones, or drawn images in their place."""
    real = SHARED / "catsdogs-photos" / "train"
    return real if real.is_dir() else made_once(tmp_path_factory, "drawn", _draw_photos) / "train"


def _draw_photos(folder: Path) -> None:
    (folder / "train").mkdir(parents=True)
    for number in range(2 * STAND_INS):
        name = f"{('cat', 'dog')[number % 2]}.{number // 2 + 1}.jpg"
        (folder / "train" / name).write_bytes(draw("street", 1, number))


@pytest.fixture(scope="session")
def real_photos(photos: Path) -> Path:
    """Photos that a camera took."""
    if not photos.is_relative_to(SHARED):
        pytest.skip(f"the real photos, {SHARED / 'catsdogs-photos'}, do not exist")
    return photos


@pytest.fixture(scope="session")
def datasets() -> Path:
    """Folders of real photos: flowers and waste, each with train and test."""
    folder = SHARED / "datasets"
    if not folder.is_dir():
        pytest.skip(f"the real photos, {folder}, do not exist")
    return folder


@pytest.fixture(scope="session")
def weights() -> Path:
    """Real ImageNet weights of mobilenetv2_100 in timm's folder format."""
    folder = SHARED / "weights" / "mobilenetv2_100"
    if not folder.is_dir():
        pytest.skip(f"the real weights, {folder}, do not exist")
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
    """Forty photos of each class, in a folder per class; tests must not change them."""

    def copy(folder: Path) -> None:
        for kind in ("cat", "dog"):
            (folder / kind).mkdir(parents=True)
            for number in range(1, 41):
                shutil.copyfile(photos / f"{kind}.{number}.jpg", folder / kind / f"{number}.jpg")

    return made_once(tmp_path_factory, "by-class", copy)


@pytest.fixture(scope="session")
def fitted(by_class: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of a classifier of those, with a small backbone; tests must not change it."""
    recipe = two_phases(by_class, backbone={"name": "vgg16-quarter"}, epochs=4)
    return made_once(tmp_path_factory, "fitted", lambda folder: tlkit.run(recipe, out=folder))


@pytest.fixture(scope="session")
def several_labels(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Drawn images with several labels each in ``images`` and a run of them in ``run``; not to be changed."""

    def make(folder: Path) -> None:
        recipe = drawings_recipe(draw_labelled(folder / "images", 240), weights)
        tlkit.run(recipe, out=folder / "run")

    return made_once(tmp_path_factory, "several-labels", make)
