"""Runs that tests of reports read: they are made once, and a test that changes one copies it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
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


@pytest.fixture(scope="session")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small run of the embedded experiment with its report: all four phases, on few drawn images."""
    folder = tmp_path_factory.mktemp("embedded")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TLKIT_CACHE", str(folder / "cache"))
        patch.setattr("tlkit.reporting.layers_section.MAXIMIZATION_STEPS", 2)
        run = tlkit.run(EXAMPLE, overrides=SMALL, out=folder / "run").folder
        tlkit.report(run)
    return run


@pytest.fixture
def embedded_cache(embedded: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes the drawn images of that run available."""
    monkeypatch.setenv("TLKIT_CACHE", str(embedded.parent / "cache"))


@pytest.fixture(scope="session")
def cross_validated(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of `tlkit.fit` with its report: too few images for its second phase, which is not taken."""
    folder = tmp_path_factory.mktemp("cross-validated")
    for kind in ("cat", "dog"):
        (folder / "images" / kind).mkdir(parents=True)
        for number in range(1, 16):
            shutil.copyfile(photos / f"{kind}.{number}.jpg", folder / "images" / kind / f"{number}.jpg")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TLKIT_CACHE", str(folder / "cache"))
        patch.setattr("tlkit.reporting.layers_section.MAXIMIZATION_STEPS", 2)
        run = tlkit.fit(folder / "images", backbone="vgg16-quarter", folds=2, out=folder / "run").folder
        tlkit.report(run)
    return run


@pytest.fixture(scope="session")
def odd_names(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one epoch with its report; its classes have names that are alike, or HTML, or formulas."""
    folder = tmp_path_factory.mktemp("odd-names")
    for name, (kind, numbers) in ODD_CLASSES.items():
        (folder / "images" / name).mkdir(parents=True)
        for number in numbers:
            shutil.copyfile(photos / f"{kind}.{number}.jpg", folder / "images" / name / f"{number}.jpg")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TLKIT_CACHE", str(folder / "cache"))
        patch.setattr("tlkit.reporting.layers_section.MAXIMIZATION_STEPS", 2)
        recipe = two_phases(folder / "images", backbone={"name": "vgg16-quarter"}, epochs=1)
        run = tlkit.run(recipe, out=folder / "run").folder
        tlkit.report(run)
    return run
