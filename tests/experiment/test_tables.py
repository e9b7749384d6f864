"""Long tables of a run folder are in Parquet, too."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pyarrow import parquet

from tlkit.data.images import Image
from tlkit.experiment import run_folder
from tlkit.experiment.run_folder import RunFolder, SplitProbabilities
from tlkit.experiment.tables import read_prediction_rows
from tlkit.parts.source import Sample

CLASSES = ("cat", "=dog")
IDS = ("a.jpg", '=1+1,"b".jpg', "-\rc.jpg", "'d.jpg", "ü\n.jpg")


@pytest.mark.parametrize("limit", [len(IDS) - 1, len(IDS)])
def test_a_long_table_is_in_parquet_too(limit: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_folder, "MANY_ROWS", limit)
    images = [
        Image(Sample(name, tmp_path, label), "", 1, 1)
        for name, label in zip(IDS, (0, 1, 0, 1, None), strict=True)
    ]
    probabilities = np.random.default_rng(1).dirichlet(np.ones(2), size=len(IDS))
    RunFolder(tmp_path).write_predictions(
        "probe", CLASSES, [SplitProbabilities("unlabelled", images, probabilities)]
    )
    RunFolder(tmp_path).copy_predictions("probe", "kept")
    for phase in ("probe", "kept"):
        folder = tmp_path / "phases" / phase
        assert len(list(read_prediction_rows(folder / "predictions.csv", CLASSES))) == len(IDS)
        file = folder / "predictions.parquet"
        assert file.is_file() == (limit < len(IDS))
        assert not list(folder.glob("*.unfinished"))
        if file.is_file():
            table = parquet.read_table(file)
            assert table.column_names == ["split", "id", "label", "predicted", "p_cat", "p_=dog"]
            assert table["id"].to_pylist() == list(IDS)
            assert table["label"].to_pylist() == ["cat", "=dog", "cat", "=dog", None]
            assert table["p_cat"].to_numpy() == pytest.approx(probabilities[:, 0], rel=1e-6)
