"""The source that reads manifests: what it accepts, and what it refuses by row and column."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet as pq

from tlkit.errors import DataError
from tlkit.parts.manifest import CLASSES_KEY
from tlkit.parts.source import RecordedFile, Sample, Source
from tlkit.plugins.loader import load_registry

REGISTRY = load_registry()
GOOD = {"path": ["c10/1.jpg", "c9/2.jpg", "new/3.jpg"], "label": ["c10", "c9", None]}
RECORD = {
    "size": [7, 8, 9],
    "mtime": [1, 2, 3],
    "sha256": ["ab" * 32] * 3,
    "width": [4] * 3,
    "height": [5] * 3,
}


def read(folder: Path, columns: dict[str, Any]) -> Source:
    """Writes a manifest with these columns, and reads it."""
    pq.write_table(pa.table(columns), folder / "images.parquet")
    source: Source = REGISTRY.make("source", "parquet", {"file": folder / "images.parquet"}, folder)
    return source


def test_a_table_of_paths_and_labels_is_enough(tmp_path: Path) -> None:
    source = read(tmp_path, GOOD)
    assert source.classes == ("c9", "c10")
    assert source.samples == [
        Sample("c10/1.jpg", tmp_path / "c10/1.jpg", 1),
        Sample("c9/2.jpg", tmp_path / "c9/2.jpg", 0),
    ]
    assert source.unlabelled == [Sample("new/3.jpg", tmp_path / "new/3.jpg")]
    grouped = read(tmp_path, {**GOOD, "group": ["patient 1", None, None]})
    assert [sample.group for sample in grouped.samples] == ["patient 1", None]


def test_lists_of_labels(tmp_path: Path) -> None:
    labels = pa.array([["sky", "sea"], [], None], pa.list_(pa.string()))
    source = read(tmp_path, {**GOOD, "label": labels})
    assert source.classes == ("sea", "sky")
    assert [(sample.label, sample.labels) for sample in source.samples] == [(None, (0, 1)), (None, ())]
    assert [sample.id for sample in source.unlabelled] == ["new/3.jpg"]
    wrong = pa.array([["sky", "sky"], ["", "sea"], [None]], pa.list_(pa.string()))
    with pytest.raises(
        DataError, match=r"wrong labels in the column 'label': row 1: \['sky', 'sky'\], row 2.*row 3"
    ):
        read(tmp_path, {**GOOD, "label": wrong})


def test_what_is_known_of_files_is_read(tmp_path: Path) -> None:
    split = ["train", "test", None]
    source = read(tmp_path, {**GOOD, **RECORD, "size": [7, None, 9], "id": ["a", "b", "c"], "split": split})
    first, second = source.samples
    assert first == Sample(
        "a", tmp_path / "c10/1.jpg", 1, "train", recorded=RecordedFile(7, 1, "ab" * 32, 4, 5)
    )
    assert second.recorded is None and second.split == "test"


@pytest.mark.parametrize(
    ("columns", "problem"),
    [
        (
            {"path": ["../a.jpg", "b.jpg", "c.jpg"]},
            r"not below data.root in the column 'path': row 1: '\.\./a",
        ),
        ({"path": ["a.jpg", "/etc/passwd", "c.jpg"]}, "not below data.root in the column 'path': row 2"),
        ({"path": ["a.jpg", "b.jpg", "C:\\c.jpg"]}, "not below data.root in the column 'path': row 3"),
        ({"path": ["a.jpg", None, "c.jpg"]}, "nothing in the column 'path': row 2"),
        ({"path": ["a.jpg", "b\n.jpg", "c.jpg"]}, "control characters in the column 'path': row 2"),
        ({"path": ["a.jpg", "a.jpg", "c.jpg"]}, "listed more than once: a.jpg"),
        ({"label": ["cat", "cat", None]}, "needs at least two classes, and has 1"),
        ({"label": ["cat", "", None]}, "empty names in the column 'label': row 2"),
        ({"split": ["train", "tset", None]}, "unknown splits in the column 'split': row 2: 'tset'"),
        ({**RECORD, "sha256": ["ab"] * 3}, "no hashes in the column 'sha256': row 1"),
        ({**RECORD, "width": [1, 0, 1]}, "numbers below 1 in the column 'width': row 2"),
        ({**RECORD, "size": ["many"] * 3}, "cannot be read as a manifest"),
    ],
)
def test_wrong_cells_are_refused(tmp_path: Path, columns: dict[str, Any], problem: str) -> None:
    with pytest.raises(DataError, match=problem):
        read(tmp_path, {**GOOD, **columns})


def test_files_that_are_no_manifests_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match=r"no column 'label' \(did you mean 'lable'\?\)"):
        read(tmp_path, {"path": ["a.jpg"], "lable": ["cat"]})
    (tmp_path / "text.parquet").write_text("path,label")
    for name, problem in (("text", "cannot be read as a manifest"), ("imagse", "does not exist .*images")):
        with pytest.raises(DataError, match=problem):
            REGISTRY.make("source", "parquet", {"file": tmp_path / f"{name}.parquet"}, tmp_path)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setattr("tlkit.builtin.parquet.find_spec", lambda _: None)
    with pytest.raises(DataError, match=r"needs pyarrow: pip install 'tlkit\[parquet\]'"):
        REGISTRY.make("source", "parquet", {"file": tmp_path / "images.parquet"}, tmp_path)


def test_class_names_that_are_not_utf8_are_refused(tmp_path: Path) -> None:
    """JSON can have them."""
    classes = {CLASSES_KEY: rb'["cat", "\ud800"]'}
    pq.write_table(pa.table(GOOD).replace_schema_metadata(classes), tmp_path / "images.parquet")
    with pytest.raises(DataError, match=r"classes has names that are not UTF-8: '\\ud800'"):
        REGISTRY.make("source", "parquet", {"file": tmp_path / "images.parquet"}, tmp_path)


def test_a_small_file_that_stands_for_gigabytes_is_refused(tmp_path: Path) -> None:
    long = pa.array(["x" * 10**6]).dictionary_encode()
    paths = pa.DictionaryArray.from_arrays(pa.array([0] * 2000), long.dictionary)
    with pytest.raises(DataError, match="its rows have more than 16,384 bytes"):
        read(tmp_path, {"path": paths, "label": ["a", "b"] * 1000})
    assert (tmp_path / "images.parquet").stat().st_size < 100_000
