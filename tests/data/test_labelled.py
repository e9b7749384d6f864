"""CSV files outside a recipe: of several labels per image, and which columns are used."""

from __future__ import annotations

from pathlib import Path

import pytest

from tlkit.data.labelled import describe_labels, describe_source
from tlkit.errors import DataError


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("path,cat,dog,is_valid", "'is_valid' seems to be none: name it split, with train and val"),
        ("path,labels", "'labels' seems to be none: if it has each image's labels, name it label"),
        ("path,Tags,split", "'Tags' seems to be none: if it has each image's labels, name it label"),
    ],
)
def test_columns_that_are_no_classes_are_refused(tmp_path: Path, header: str, message: str) -> None:
    table = tmp_path / "labels.csv"
    table.write_text(header + "\n")
    with pytest.raises(DataError, match=message):
        describe_labels(table)


def test_columns_beside_the_labels_are_not_taken_for_classes(tmp_path: Path) -> None:
    table = tmp_path / "labels.csv"
    table.write_text("path,label,is_valid\n")
    part, _ = describe_labels(table)
    assert part.options == {"file": "labels.csv", "separator": "|"}


def test_columns_of_splits_and_groups_are_used(tmp_path: Path) -> None:
    table, columns = tmp_path / "labels.csv", {"split_column": "split", "group_column": "group"}
    table.write_text("path,label,group,split\n")
    part, _ = describe_source(table)
    assert part.options == {"file": "labels.csv", **columns}
    table.write_text("path,cat,dog,group,split\n")
    part, _ = describe_labels(table)
    assert part.options == {"file": "labels.csv", "label_columns": ["cat", "dog"], **columns}
