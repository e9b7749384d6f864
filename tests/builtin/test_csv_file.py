"""The built-in source that reads a CSV file, with real images."""

from __future__ import annotations

from pathlib import Path

import pytest
from source_files import draw, ids, table

from tlkit.builtin.csv_file import csv_file
from tlkit.data.labelled import describe_source
from tlkit.errors import DataError
from tlkit.parts.source import Sample
from tlkit.plugins.loader import load_registry


def test_a_csv_file(tmp_path: Path) -> None:
    draw(tmp_path, "a/1.png", "2.png", "3.png", "4.png")
    # as a spreadsheet writes it: with a byte order mark
    (tmp_path / "l.csv").write_text(
        "id,file,what,part,film\n1,a/1.png,dog,train,f1\n2, ./2.png ,cat,Train,f1\n\n"
        "3,3.png,dog,validation,\n4,4.png,cat,val,f2\n",
        encoding="utf-8-sig",
    )
    columns = {"path": "file", "label": "what", "split": "part", "group": "film"}
    source = csv_file(tmp_path, file="l.csv", **{f"{key}_column": name for key, name in columns.items()})
    assert source.classes == ("cat", "dog")
    assert source.samples == [
        Sample("a/1.png", tmp_path / "a" / "1.png", 1, "train", group="f1"),
        Sample("2.png", tmp_path / "2.png", 0, "train", group="f1"),
        Sample("3.png", tmp_path / "3.png", 1, "val"),
        Sample("4.png", tmp_path / "4.png", 0, "val", group="f2"),
    ]


def test_all_mistakes_in_a_csv_file_are_reported_with_their_lines(tmp_path: Path) -> None:
    draw(tmp_path, "1.png", "2.png")
    rows = [
        "1.png,cat,train",
        "./1.png,dog,val",
        "../x.png,dog,val",
        "/etc/x.png,dog,val",
        "gone.png,dog,val",
    ]
    rows += ["2.png,,dev", ",dog,val", r"C:\x.png,dog,val", *(f"no{i}.png,dog,val" for i in range(5))]
    table(tmp_path, ["path,label,split", *rows])
    with pytest.raises(DataError) as error:
        csv_file(tmp_path, split_column="split")
    head, *lines = str(error.value).splitlines()
    assert head == f"{tmp_path / 'labels.csv'}: 13 problems"
    expected = [
        "line 3: './1.png' is in line 2 already",
        "line 4: '../x.png' leads out of",
        "line 5: '/etc/x.png' leads out of",
        "line 6: 'gone.png' is not a file in",
        "line 7: 'label' is empty",
        "line 7: 'split' is 'dev': it must be train, val or test",
        "line 8: the path is empty",
        r"line 9: 'C:\\x.png' leads out of",
        "line 10: 'no0.png' is not a file in",
        "line 11: 'no1.png' is not a file in",
        "and 3 more",
    ]
    assert len(lines) == len(expected)
    assert all(line.startswith(f"  - {start}") for line, start in zip(lines, expected, strict=True))


def test_absolute_paths_in_a_csv_file_stay_inside_the_root(tmp_path: Path) -> None:
    draw(tmp_path, "photos/a/1.png", "photos/b/2.png", "other/3.png")
    inside = [f"{tmp_path}/photos/a/1.png,cat", f"{tmp_path}/photos/b/2.png,dog"]
    table(tmp_path, ["path,label", *inside])
    # a file that the user names says itself where its images are
    part, root = describe_source(tmp_path / "labels.csv")
    assert root == tmp_path / "photos"
    assert ids(csv_file(root, **part.options).samples) == ["a/1.png", "b/2.png"]
    # a recipe's root stays the limit
    table(
        tmp_path,
        ["path,label", *inside, f"{tmp_path}/photos/../other/3.png,dog", f"{tmp_path}/other/3.png,dog"],
    )
    with pytest.raises(DataError, match=r"2 problems\n.*line 4: .*leads out of.*\n.*line 5: .*leads out of"):
        csv_file(root, **part.options)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["path,lable", "1.png,cat"], r"no column 'label' \(did you mean 'lable'\?\); it has path, lable"),
        (["file,what"], "no column 'path'; no column 'label'; it has file, what"),
        (["path,label", "1.png,cat"], "only one class, 'cat': it needs a label column with at least two"),
        (["path,label"], "has no classes"),
    ],
)
def test_csv_files_that_cannot_be_used(tmp_path: Path, lines: list[str], message: str) -> None:
    draw(tmp_path, "1.png")
    table(tmp_path, lines)
    with pytest.raises(DataError, match=message):
        csv_file(tmp_path)


def test_csv_files_that_cannot_be_read(tmp_path: Path) -> None:
    table(tmp_path, ["path,label"])
    with pytest.raises(DataError, match=r"label.csv does not exist \(did you mean 'labels.csv'\?\)"):
        csv_file(tmp_path, file="label.csv")
    (tmp_path / "labels.csv").write_bytes(b"path,label\n\xff.png,cat\n")
    with pytest.raises(DataError, match="cannot be read as a CSV file in UTF-8"):
        csv_file(tmp_path)
    (tmp_path / "labels.csv").write_bytes(b"")
    with pytest.raises(DataError, match="the file is empty"):
        csv_file(tmp_path)


def test_it_is_registered_as_a_part() -> None:
    registry = load_registry(["tlkit.builtin.csv_file"])
    assert registry.problems("source", "csv", {"file": 1}) == [("file", "must be str, not the number 1")]


def test_a_csv_of_several_labels_has_them_in_one_column_or_in_several(tmp_path: Path) -> None:
    draw(tmp_path, "1.png", "2.png", "3.png")
    table(tmp_path, ["path,label,sky,sea", "1.png, sea ; sky,1,1", "2.png,,0,0", "3.png,sea,0,1"])
    separated = csv_file(tmp_path, separator=";")
    assert separated.classes == ("sea", "sky")
    assert [sample.labels for sample in separated.samples] == [(0, 1), (), (0,)]
    assert {sample.label for sample in separated.samples} == {None}
    columns = csv_file(tmp_path, label_columns=["sky", "sea"])
    assert columns.classes == ("sky", "sea")
    assert [sample.labels for sample in columns.samples] == [(0, 1), (), (1,)]


def test_a_csv_of_several_labels_is_not_taken_for_one_of_many_classes(tmp_path: Path) -> None:
    draw(tmp_path, "1.png", "2.png", "3.png")
    table(tmp_path, ["path,label", "1.png,sea;sky", "2.png,sky", "3.png,sea"])
    with pytest.raises(DataError, match="'sea;sky' is made of the classes 'sea' and 'sky'") as error:
        csv_file(tmp_path)
    assert "separator = \";\" in its source, or give tlkit fit --task multilabel --separator ';'" in str(
        error.value
    )
    assert str(error.value).endswith("write its name without ';', such as 'sea and sky'")
    table(tmp_path, ["path,label", "1.png,sea;sky", "2.png,lake", "3.png,lake"])
    assert csv_file(tmp_path).classes == ("lake", "sea;sky")
    table(tmp_path, ["path,label", "1.png,sea", "2.png,sky", "3.png,"])
    with pytest.raises(DataError, match="line 4: 'label' is empty \\(images that may have none"):
        csv_file(tmp_path)


def test_wrong_cells_of_several_labels_are_named(tmp_path: Path) -> None:
    draw(tmp_path, "1.png", "2.png")
    table(tmp_path, ["path,label,sky,sea", "1.png,sea|,1,yes", "2.png,sky|sky,,0"])
    with pytest.raises(DataError) as error:
        csv_file(tmp_path, separator="|")
    assert "line 2: 'label' is 'sea|': a label in it is empty" in str(error.value)
    assert "line 3: 'label' has 'sky' twice" in str(error.value)
    with pytest.raises(DataError) as error:
        csv_file(tmp_path, label_columns=["sky", "sea"])
    assert "line 2: 'sea' is 'yes': it must be 0 or 1, or False or True" in str(error.value)
    assert "line 3: 'sky' is '': it must be 0 or 1" in str(error.value)
    with pytest.raises(DataError, match="set either separator or label_columns, not both"):
        csv_file(tmp_path, separator="|", label_columns=["sky"])
    with pytest.raises(DataError, match="separator must not be empty"):
        csv_file(tmp_path, separator="")
    with pytest.raises(DataError, match="label_columns must not be empty"):
        csv_file(tmp_path, label_columns=[])


def test_columns_of_classes_as_pandas_writes_them(tmp_path: Path) -> None:
    draw(tmp_path, "1.png", "2.png")
    table(tmp_path, ["path,sky,sea", "1.png,True,False", "2.png,False,False"])
    source = csv_file(tmp_path, label_columns=["sky", "sea"])
    assert [sample.labels for sample in source.samples] == [(0,), ()]
    table(tmp_path, ["path,sky,sea,sky", "1.png,1,0,0", "2.png,0,1,0"])
    with pytest.raises(DataError, match="has several columns sky: keep one of them"):
        csv_file(tmp_path, label_columns=["sky", "sea"])
    with pytest.raises(DataError, match="label_columns names sea more than once"):
        csv_file(tmp_path, label_columns=["sea", "sea"])


def test_a_split_may_lack_one_of_several_labels(tmp_path: Path) -> None:
    draw(tmp_path, "1.png", "2.png", "3.png")
    table(tmp_path, ["path,label,split", "1.png,sea|sky,train", "2.png,sky,val", "3.png,,test"])
    source = csv_file(tmp_path, split_column="split", separator="|")
    assert [sample.labels for sample in source.samples] == [(0, 1), (1,), ()]
    with pytest.raises(DataError, match="every split needs every class"):
        table(tmp_path, ["path,label,split", "1.png,sea,train", "2.png,sky,train", "3.png,sky,test"])
        csv_file(tmp_path, split_column="split")


def test_another_separator_than_the_one_named_is_noticed(tmp_path: Path) -> None:
    for number in (1, 2, 3):
        (tmp_path / f"{number}.jpg").touch()
    table(tmp_path, ["path,label", "1.jpg,a;b", "2.jpg,a", "3.jpg,b"])
    with pytest.raises(DataError, match="'a;b' is made of the classes 'a' and 'b'"):
        csv_file(tmp_path, separator="|")


@pytest.mark.parametrize(
    ("cells", "divided_at"),
    [
        (["a;b", "b;c", "c"], "';', 3 different cells have 3 labels"),
        (["a,b", "b, c", ""], "',', 2 different cells have 3 labels"),
        (["haze primary", "clear primary", "haze water", "clear water", "haze", "clear"],
         "' ', 6 different cells have 4 labels"),
    ],
)  # fmt: skip
def test_a_separator_that_no_cell_has_is_noticed(tmp_path: Path, cells: list[str], divided_at: str) -> None:
    for number in range(len(cells)):
        (tmp_path / f"{number}.jpg").touch()
    table(tmp_path, ["path,label", *(f'{number}.jpg,"{cell}"' for number, cell in enumerate(cells))])
    with pytest.raises(DataError, match=f"no cell has '\\|', .* divided at {divided_at}") as error:
        csv_file(tmp_path, separator="|")
    separator = divided_at[1]
    assert f"give --separator '{separator}'" in str(error.value)
    assert max(len(sample.class_indices) for sample in csv_file(tmp_path, separator=separator).samples) == 2


def test_names_of_single_classes_may_have_spaces_and_commas(tmp_path: Path) -> None:
    names = ["golden retriever", "golden eagle", "bald eagle", "tench, Tinca tinca", "bear", "polar bear"]
    for number in range(len(names)):
        (tmp_path / f"{number}.jpg").touch()
    table(tmp_path, ["path,label", *(f'{number}.jpg,"{name}"' for number, name in enumerate(names))])
    assert set(csv_file(tmp_path, separator="|").classes) == set(names)
