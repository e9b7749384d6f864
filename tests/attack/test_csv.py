"""CSV files that tlkit writes: a spreadsheet shows them and runs nothing, and tlkit reads what it wrote."""

from __future__ import annotations

import csv
import io
import random
import shutil
from pathlib import Path

import pytest
from commands import command

from tlkit.experiment.run_folder import RunFolder
from tlkit.experiment.tables import read_rows
from tlkit.utils.csv_cells import escape, unescape, write_rows

FORMULAS = ["=HYPERLINK(1)", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "'=1", "''", "'"]
ALPHABET = "=+-@\t\r\n'\",; a1é\x00\x85\u2028😀"


def random_strings(count: int) -> list[str]:
    rng = random.Random(3)
    return ["".join(rng.choices(ALPHABET, k=rng.randrange(8))) for _ in range(count)]


@pytest.mark.parametrize("formula", FORMULAS)
def test_what_a_spreadsheet_would_run_begins_with_an_apostrophe(formula: str) -> None:
    assert escape(formula) == f"'{formula}"


def test_every_string_comes_back() -> None:
    for text in [*FORMULAS, *random_strings(5000), "it's", "a=b", ""]:
        assert unescape(escape(text)) == text
        assert not escape(text).startswith(("=", "+", "-", "@", "\t", "\r"))


def test_a_cell_that_an_earlier_version_wrote_is_read_as_it_is() -> None:
    assert unescape("'tis") == "'tis"


def test_every_row_comes_back_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    texts = [text.replace("\x00", "") for text in random_strings(3000)]
    rows = [["id", "-value"], *([a, b] for a, b in zip(texts[::2], texts[1::2], strict=True))]
    with path.open("w", newline="", encoding="utf-8") as file:
        write_rows(file, rows)
    assert [row for _, row in read_rows(path, rows[0])] == rows[1:]


def test_numbers_stay_numbers() -> None:
    stream = io.StringIO()
    write_rows(stream, [[-0.5, 1, None]])
    assert stream.getvalue() == "-0.5,1,\n"


@pytest.fixture(scope="module")
def formula_run(by_class: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A folder of images whose names and classes are formulas, and the run folder of a classifier of them."""
    folder = tmp_path_factory.mktemp("formulas")
    photos = folder / "photos"
    for kind, name in (("cat", "=1+1"), ("dog", "@SUM(A1)")):
        (photos / name).mkdir(parents=True)
        for number in range(1, 11):
            shutil.copyfile(by_class / kind / f"{number}.jpg", photos / name / f"-{number}.jpg")
    run = folder / "run"
    options = ("--backbone", "vgg16-quarter", "--quality", "fast", "--folds", 2, "--no-report")
    done = command("fit", photos, *options, "--out", run)
    assert done.returncode == 0, done.stderr
    return photos, run


def test_classes_and_ids_in_a_run_folder(formula_run: tuple[Path, Path]) -> None:
    _, run = formula_run
    predictions = run / "phases" / "probe" / "predictions.csv"
    for path in (run / "splits.csv", predictions):
        with path.open(newline="", encoding="utf-8") as file:
            cells = [cell for row in csv.reader(file) for cell in row]
        assert "'=1+1" in cells
        assert not [cell for cell in cells if cell.startswith(("=", "+", "-", "@"))]
    correct = RunFolder(run).correct("probe", "out-of-fold", ("=1+1", "@SUM(A1)"))
    assert correct
    assert all(name.startswith(("=1+1/-", "@SUM(A1)/-")) for name in correct)
    assert command("report", run).returncode == 0
    assert command("run", run, "--out", run).returncode == 0  # splits.csv is compared with the images


def test_predictions_that_are_printed(
    formula_run: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    photos, run = formula_run
    monkeypatch.chdir(photos)
    done = command("predict", run, "=1+1", "@SUM(A1)", "--csv")
    assert done.returncode == 0, done.stderr
    _, *rows = csv.reader(io.StringIO(done.stdout))
    assert len(rows) == 20
    assert {row[0][:2] for row in rows} == {"'=", "'@"}
    assert {row[1] for row in rows} <= {"'=1+1", "'@SUM(A1)", "unclassified"}
