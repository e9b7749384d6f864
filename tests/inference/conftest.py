"""A probe of cats and dogs on real features, which can tell unknown images."""

from __future__ import annotations

from pathlib import Path

import pytest
from made_once import made_once
from small_runs import PROBE

import tlkit
from tlkit.inference.export_onnx import export_onnx


@pytest.fixture(scope="session")
def model(
    real_photos: Path, by_class: Path, weights: Path, tmp_path_factory: pytest.TempPathFactory
) -> tlkit.Run:
    """A probe of cats and dogs, on real features."""

    def make(folder: Path) -> None:
        folder.mkdir()
        (folder / "recipe.toml").write_text(PROBE.format(photos=by_class, weights=weights))
        tlkit.run(folder / "recipe.toml", out=folder / "run")

    folder = made_once(tmp_path_factory, "probe", make)
    return tlkit.run(folder / "recipe.toml", out=folder / "run")  # it has ended: its results are read


@pytest.fixture(scope="session")
def known(real_photos: Path, model: tlkit.Run) -> list[Path]:
    """Photos of cats and dogs that it was not trained on."""
    return [real_photos / f"{kind}.{number}.jpg" for kind in ("cat", "dog") for number in range(41, 61)]


@pytest.fixture(scope="session")
def waste(datasets: Path) -> list[Path]:
    """Photos of waste."""
    folder = datasets / "waste" / "test"
    return [path for kind in sorted(folder.iterdir()) for path in sorted(kind.iterdir())[:5]]


@pytest.fixture(scope="session")
def exported(model: tlkit.Run, known: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The ONNX file of the probe of cats and dogs."""

    def make(folder: Path) -> None:
        folder.mkdir()
        check = export_onnx(model.folder / "phases" / "probe" / "model", folder / "probe.onnx", known[::5])
        assert (check.images, check.left_out) == (8, ())

    return made_once(tmp_path_factory, "exported", make) / "probe.onnx"


@pytest.fixture(scope="session")
def photos_of_all(known: list[Path], waste: list[Path]) -> list[Path]:
    """Photos of some dozen sizes, of which the probe should call half unknown."""
    return [*known, *waste]
