"""A small run of the embedded experiment: all four phases, on few drawn images."""

from __future__ import annotations

from pathlib import Path

import pytest

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


@pytest.fixture(scope="session")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its run folder, with its report; not to be changed by a test."""
    folder = tmp_path_factory.mktemp("embedded")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TLKIT_CACHE", str(folder / "cache"))
        run = tlkit.run(EXAMPLE, set=SMALL, out=folder / "run").folder
        tlkit.report(run)
    return run


@pytest.fixture
def its_cache(embedded: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the drawn images of that run are."""
    monkeypatch.setenv("TLKIT_CACHE", str(embedded.parent / "cache"))


@pytest.fixture(autouse=True)
def few_steps(embedded: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reports that are made after that one maximise for two steps only, since it takes long."""
    monkeypatch.setattr("tlkit.reporting.gallery.MAXIMISING_STEPS", 2)
