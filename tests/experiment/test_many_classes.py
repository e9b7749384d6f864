"""Predictions of many classes: their probabilities are in a file of their own, which is checked when read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from safetensors.torch import load_file as load_torch
from safetensors.torch import save_file as save_torch

from tlkit.data.images import Image
from tlkit.errors import RunFolderError
from tlkit.experiment.record import _read_predictions
from tlkit.experiment.run_folder import RunFolder, SplitProbabilities
from tlkit.parts.source import Sample

CLASSES = tuple(f"class {number}" for number in range(101))
COUNTS = {"val": 2, "test": 3}


@pytest.fixture
def written(tmp_path: Path) -> Path:
    """The folder of a phase with predictions of two splits."""
    generator = np.random.default_rng(1)
    folder = RunFolder(tmp_path)
    folder.write_predictions(
        "probe",
        CLASSES,
        [
            SplitProbabilities(
                split,
                [Image(Sample(f"{split} {row}", tmp_path, row), "", 1, 1) for row in range(count)],
                generator.dirichlet(np.ones(len(CLASSES)), size=count),
            )
            for split, count in COUNTS.items()
        ],
    )
    return folder.phase("probe")


def test_they_are_read_as_they_were_written(written: Path, tmp_path: Path) -> None:
    lines = (written / "predictions.csv").read_text().splitlines()
    assert lines[0] == "split,id,label,predicted,probability" and len(lines) == 6
    RunFolder(tmp_path).copy_predictions("probe", "kept")
    for folder in (written, tmp_path / "phases" / "kept"):
        read = _read_predictions(folder / "predictions.csv", CLASSES, {})
        stored = load_file(folder / "probabilities.safetensors")
        for split, count in COUNTS.items():
            assert read[split].labels.tolist() == list(range(count))
            assert (read[split].probabilities == stored[split]).all()
    _, name, label, predicted, probability = lines[-1].split(",")
    last = read["test"]
    assert (name, label) == ("test 2", "class 2") and predicted == CLASSES[last.predicted[2]]
    assert float(probability) == pytest.approx(last.confidence[2], rel=1e-5)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda values: {}, "cannot be read: .*val"),
        (
            lambda values: {**values, "test": values["test"][:2]},
            r"must be float32 of the shape \(3, 101\)",
        ),
        (lambda values: {**values, "val": values["val"].astype(np.float64)}, "val must be float32"),
        (
            lambda values: {**values, "test": values["test"] * np.float32([[1], [2], [1]])},
            "test, row 1: its probabilities are negative, or do not sum to 1",
        ),
    ],
    ids="missing short float64 scaled".split(),
)
def test_what_is_no_probabilities_is_refused(written: Path, change: object, problem: str) -> None:
    file = written / "probabilities.safetensors"
    save_file(change(load_file(file)), file)  # type: ignore[operator]
    with pytest.raises(RunFolderError, match=problem):
        _read_predictions(written / "predictions.csv", CLASSES, {})
    file.unlink()
    with pytest.raises(RunFolderError, match=r"probabilities\.safetensors cannot be read"):
        _read_predictions(written / "predictions.csv", CLASSES, {})


def test_probabilities_of_a_type_that_numpy_has_not_are_refused(written: Path) -> None:
    file = written / "probabilities.safetensors"
    save_torch({split: value.bfloat16() for split, value in load_torch(file).items()}, file)
    with pytest.raises(
        RunFolderError, match=r"probabilities\.safetensors cannot be read: \w+ must be float32"
    ):
        _read_predictions(written / "predictions.csv", CLASSES, {})
