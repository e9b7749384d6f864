"""Writes predictions to Parquet, as they come."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from tlkit.errors import DataError
from tlkit.utils.atomic_write import atomic_write

if TYPE_CHECKING:
    from tlkit.inference.prediction import Prediction

SUFFIX = ".parquet"
#: Rows that are written at a time.
ROWS = 10_000


def check_parquet(file: Path) -> None:
    """Checks that predictions can be written to a file.

    Raises:
        DataError: it is not a Parquet file by its name, its folder is missing, or pyarrow is.
    """
    if file.suffix != SUFFIX:
        raise DataError(f"{file}: predictions are written in Parquet: give it a name that ends in {SUFFIX}")
    if file.is_dir():
        raise DataError(f"{file} is a folder: name a file, such as {file / f'predictions{SUFFIX}'}")
    if not file.parent.is_dir():
        raise DataError(f"{file} cannot be written: folder {file.parent} does not exist: make it first")
    if find_spec("pyarrow") is None:
        raise DataError("Parquet needs pyarrow: pip install 'tlkit[parquet]'")


@contextmanager
def writing_parquet(file: Path) -> Iterator[Callable[[Prediction], object]]:
    """Yields what takes predictions, which are in the file in the end: all, or none if there is an error.

    Raises:
        DataError: the file cannot be written.
    """
    import pyarrow as pa
    from pyarrow import parquet

    scores = pa.list_(pa.struct({"class": pa.string(), "probability": pa.float64()}))
    schema = pa.schema(
        {
            "path": pa.string(),
            "label": pa.string(),
            "confidence": pa.float64(),
            "top": scores,
            "labels": scores,
            "novelty": pa.float64(),
            "error": pa.string(),
        }
    )
    rows: list[dict[str, object]] = []
    with ExitStack() as opened:
        with _writing_errors(file):
            temporary = opened.enter_context(atomic_write(file))
            writer = opened.enter_context(parquet.ParquetWriter(temporary, schema))

        def flush() -> None:
            with _writing_errors(file):
                writer.write_table(pa.Table.from_pylist(rows, schema))
            rows.clear()

        def add(prediction: Prediction) -> None:
            rows.append(
                {
                    "path": _to_utf8(prediction.image),
                    "label": prediction.label,
                    "confidence": prediction.confidence,
                    "top": named_scores(prediction.top),
                    "labels": None if prediction.labels is None else named_scores(prediction.labels),
                    "novelty": prediction.novelty,
                    "error": None if prediction.error is None else _to_utf8(prediction.error),
                }
            )
            if len(rows) == ROWS:
                flush()

        yield add
        flush()
        with _writing_errors(file):
            opened.close()


@contextmanager
def _writing_errors(file: Path) -> Iterator[None]:
    """Raises DataError where a file cannot be written; what else is computed meanwhile has its own errors."""
    try:
        yield
    except OSError as error:
        raise DataError(f"{file} cannot be written: {error.strerror or error}") from error


def _to_utf8(text: str) -> str:
    """Replaces bytes of a file's name that are not UTF-8 by escapes, as in what is printed."""
    return text.encode("utf-8", "backslashreplace").decode()


def named_scores(pairs: Sequence[tuple[str, float]]) -> list[dict[str, object]]:
    """Returns classes and their probabilities as JSON and Parquet have them."""
    return [{"class": name, "probability": probability} for name, probability in pairs]
