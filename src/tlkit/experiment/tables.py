"""The tables of a run folder: CSV files, read with errors that name the file and the line, and Parquet."""

from __future__ import annotations

import csv
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

from tlkit.errors import RunFolderError
from tlkit.utils.csv_cells import ESCAPED, unescape
from tlkit.utils.regular_files import check_regular

#: The values of the column `split` of splits.csv, and of predictions.csv.
PARTS = ("train", "val", "test", "unlabelled")
PREDICTED = (*PARTS, "out-of-fold")
#: The columns of predictions.csv in front of the probabilities.
PREDICTION_COLUMNS = ("split", "id", "label", "predicted")
#: With more classes than this, predictions.csv has the probability of the predicted class alone, and
#: probabilities.safetensors those of all: as text they are long, and slow to write and to read.
MAX_COLUMNS, PROBABILITIES = 100, "probabilities.safetensors"
#: Tables with more rows than this are in Parquet, too, which is smaller, and has types.
MANY_ROWS = 100_000


def prediction_columns(classes: Sequence[str]) -> list[str]:
    """Returns the columns of predictions.csv."""
    if len(classes) > MAX_COLUMNS:
        return [*PREDICTION_COLUMNS, "probability"]
    return [*PREDICTION_COLUMNS, *(f"p_{name}" for name in classes)]


def read_rows(path: Path, columns: Sequence[str]) -> Iterator[tuple[int, list[str]]]:
    """Yields the line number and the cells of each row of a CSV file that has exactly these columns.

    The cells are as they were before `write_rows` escaped them.

    Raises:
        RunFolderError: it cannot be read, has other columns, or a row has too few or too many cells.
    """
    try:
        check_regular(path)
        with path.open(newline="", encoding="utf-8") as file:
            rows = csv.reader(file)
            header = [*map(unescape, next(rows, []))]
            if header != [*columns]:
                raise RunFolderError(f"{path} cannot be read: its columns are not {', '.join(columns[:8])}")
            for row in rows:
                if len(row) != len(columns):
                    raise malformed(path, rows.line_num, f"{len(row)} cells, not {len(columns)}")
                yield rows.line_num, [*map(unescape, row)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise RunFolderError(f"{path} cannot be read: {error}") from error


def write_parquet(table: Path, file: Path) -> None:
    """Writes what a CSV file of `write_rows` has to a Parquet file; pyarrow must be installed.

    Values are as they were before they were escaped, and null where a cell is empty. A part of the rows is in
    memory at a time.
    """
    import pyarrow as pa
    from pyarrow import compute as pc
    from pyarrow import csv as arrow_csv
    from pyarrow import parquet

    with table.open(newline="", encoding="utf-8") as opened:
        header = next(csv.reader(opened))
    schema = pa.schema([(unescape(cell), _arrow_type(cell)) for cell in header])
    types = dict(zip(header, schema.types, strict=True))
    parse = arrow_csv.ParseOptions(newlines_in_values=True)
    convert = arrow_csv.ConvertOptions(column_types=types, null_values=[""], strings_can_be_null=True)
    with (
        arrow_csv.open_csv(table, parse_options=parse, convert_options=convert) as batches,
        parquet.ParquetWriter(file, schema, compression="zstd") as writer,
    ):
        for batch in batches:
            columns = [
                pc.replace_substring_regex(column, ESCAPED, r"\1") if column.type == pa.string() else column
                for column in batch.columns
            ]
            writer.write_batch(pa.record_batch(columns, schema))


def _arrow_type(column: str) -> Any:
    """Returns the type of a column of splits.csv or predictions.csv."""
    import pyarrow as pa

    if column in ("width", "height"):
        return pa.int32()
    return pa.float32() if column == "probability" or column.startswith("p_") else pa.string()


def read_prediction_rows(path: Path, classes: Sequence[str]) -> Iterator[tuple[int, list[str]]]:
    """Yields the rows of predictions.csv, with splits and class names checked; see `read_rows`."""
    known = frozenset(classes)
    for line, row in read_rows(path, prediction_columns(classes)):
        split, _, label, predicted, *_ = row
        check_value(path, line, "split", split, PREDICTED)
        if label or split != "unlabelled":
            check_value(path, line, "label", label, known)
        check_value(path, line, "predicted", predicted, known)
        yield line, row


def check_value(path: Path, line: int, column: str, value: str, known: Collection[str]) -> None:
    """Raises RunFolderError if a cell has none of the known values."""
    if value not in known:
        raise malformed(path, line, f"{column} {value!r} is unknown")


def malformed(path: Path, line: int, problem: str) -> RunFolderError:
    """Returns the error about a line of a file."""
    return RunFolderError(f"{path} cannot be read: line {line}: {problem}")
