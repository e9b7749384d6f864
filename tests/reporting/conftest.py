"""Runs that tests of reports read: they are made once, and a test that changes one copies it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from made_once import made_once
from small_runs import two_phases

import tlkit

EXAMPLE = Path(__file__).parents[2] / "examples" / "catsdogs"
SMALL = {
    "data.source.per_class": 70,
    "data.source.without_label": 20,
    "data.per_class": {"train": 20, "val": 10, "test": 40},
    "training.epochs": 3,
    "phase.benchmark.epochs": 2,
    "phase.fine-tune.epochs": 2,
}
#: Classes of the run with odd names, and the photos of cats or dogs that stand for them.
ODD_CLASSES = {
    "American Staffordshire $_$ terrier": ("cat", range(1, 6)),
    "_third": ("cat", range(6, 11)),
    "<b onclick=alert(1)>&amp;": ("cat", range(11, 16)),
    "American Staffordshire $_$ bull terrier": ("dog", range(1, 16)),
}


def with_report(factory: pytest.TempPathFactory, name: str, run: Callable[[Path], tlkit.Run]) -> Path:
    """Returns a run folder with its report, and with the cache beside it, that all workers share.

    Args:
        factory: knows the folder of all workers.
        name: the folder's name.
        run: runs something in that folder, with ``run`` as the run folder.
    """

    def make(folder: Path) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("TLKIT_CACHE", str(folder / "cache"))
            patch.setattr("tlkit.reporting.layers_section.MAXIMIZATION_STEPS", 2)
            tlkit.report(run(folder).folder)

    return made_once(factory, name, make) / "run"


@pytest.fixture(scope="session")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small run of the embedded experiment with its report: all four phases, on few drawn images."""
    return with_report(
        tmp_path_factory, "embedded", lambda folder: tlkit.run(EXAMPLE, overrides=SMALL, out=folder / "run")
    )


@pytest.fixture
def embedded_cache(embedded: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes the drawn images of that run available."""
    monkeypatch.setenv("TLKIT_CACHE", str(embedded.parent / "cache"))


@pytest.fixture(scope="session")
def cross_validated(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of `tlkit.fit` with its report: too few images for its second phase, which is not taken."""

    def run(folder: Path) -> tlkit.Run:
        for kind in ("cat", "dog"):
            (folder / "images" / kind).mkdir(parents=True)
            for number in range(1, 16):
                shutil.copyfile(photos / f"{kind}.{number}.jpg", folder / "images" / kind / f"{number}.jpg")
        return tlkit.fit(folder / "images", backbone="vgg16-quarter", folds=2, out=folder / "run")

    return with_report(tmp_path_factory, "cross-validated", run)


@pytest.fixture(scope="session")
def odd_names(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one epoch with its report; its classes have names that are alike, or HTML, or formulas."""

    def run(folder: Path) -> tlkit.Run:
        for name, (kind, numbers) in ODD_CLASSES.items():
            (folder / "images" / name).mkdir(parents=True)
            for number in numbers:
                shutil.copyfile(photos / f"{kind}.{number}.jpg", folder / "images" / name / f"{number}.jpg")
        recipe = two_phases(folder / "images", backbone={"name": "vgg16-quarter"}, epochs=1)
        return tlkit.run(recipe, out=folder / "run")

    return with_report(tmp_path_factory, "odd-names", run)
