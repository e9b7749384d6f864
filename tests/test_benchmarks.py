"""The benchmarks' arithmetic, and one contender; the others need the group bench."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import pytest

import benchmarks
from benchmarks.__main__ import EPOCHS, IMAGES, experiment_seconds, images_per_second, measure
from benchmarks.data import lay_out
from benchmarks.work import Work
from tlkit import DataError


@pytest.mark.parametrize(
    "script", sorted(Path(benchmarks.__path__[0]).glob("*.py")), ids=lambda file: file.stem
)
def test_a_script_can_be_imported(script: Path) -> None:
    assert import_module(f"benchmarks.{script.stem}").__doc__


def test_images_are_laid_out_once_each(tmp_path: Path, photos: Path) -> None:
    counts = {"train": 3, "val": 1, "test": 2}
    for name, data in (("drawn", None), ("photos", photos)):
        lay_out(tmp_path / name, counts, data)
        for split, count in counts.items():
            for kind in ("cat", "dog"):
                assert len(list((tmp_path / name / split / kind).glob("*.jpg"))) == count
        contents = [path.read_bytes() for path in (tmp_path / name).rglob("*.jpg")]
        assert len(set(contents)) == 12
    with pytest.raises(DataError, match="are needed"):
        lay_out(tmp_path / "many", {"train": 100_000}, photos)


def test_a_peers_experiment_is_extrapolated_from_its_epochs() -> None:
    measurement = {"epochs": [99.0, 10.0, 10.0], "besides": 5.0, "wall": 134.0}
    assert images_per_second(measurement, 200) == 20, "the first epoch is a warm-up"
    assert experiment_seconds(measurement, 200) == pytest.approx(10 + IMAGES * EPOCHS / 20)


def test_the_experiment_of_tlkit_includes_its_frozen_pass_and_its_start() -> None:
    own = {"seconds": 11.0, "frozen_pass": 4.0, "process_start": 3.0, "second": {}}
    measurement = {"epochs": [2.0, 2.0], **own}
    start = 11 - 4 - 4 + 3
    assert experiment_seconds(measurement, 200) == pytest.approx(
        start + 4 * IMAGES / 200 + IMAGES * EPOCHS / 100
    )


@pytest.mark.slow
def test_the_contender_of_tlkit_does_the_work(tmp_path: Path) -> None:
    lay_out(tmp_path, {"train": 8, "val": 4, "test": 4}, None)
    measurement = measure("contenders.tlkit_run", Work(str(tmp_path), epochs=2))
    assert len(measurement["epochs"]) == 2 and measurement["frozen_views"] == 32
    assert measurement["second"]["rate"]["reused"] == 24, "another learning rate computes no feature"
    assert measurement["second"]["head"]["reused"] == 24
