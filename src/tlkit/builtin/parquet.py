"""The built-in source that reads a manifest, such as `tlkit manifest` writes."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from importlib.util import find_spec
from itertools import repeat
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tlkit.builtin.sources import natural
from tlkit.errors import DataError, close_matches
from tlkit.parts.manifest import CLASSES_KEY, OPTIONAL, RECORDED, REQUIRED
from tlkit.parts.source import SPLITS, RecordedFile, Sample, Source
from tlkit.plugins.hookspecs import hookimpl
from tlkit.utils.formatting import shortlist
from tlkit.utils.regular_files import check_regular

if TYPE_CHECKING:
    from tlkit.plugins.registry import Register

#: Paths that lead out of the root, on any system.
OUTSIDE = r"^[/\\]|^[A-Za-z]:|(^|[/\\])\.\.([/\\]|$)"
#: Rows that are read at a time, and how many bytes one may have in the mean of these.
ROWS, MAX_ROW = 1024, 16_384
#: Control characters.
CONTROL = r"[\x00-\x1f\x7f]"
#: What JSON can have and UTF-8 cannot.
SURROGATE = re.compile(r"[\ud800-\udfff]")


@hookimpl
def tlkit_sources(register: Register) -> None:
    register("parquet", parquet)


def parquet(root: Path, *, file: Path) -> Source:
    """Lists the images in a Parquet file, such as `tlkit manifest` writes.

    It has a row per image with its ``path`` and ``label``; an image whose label is null has none. Where an
    image may have several labels, they are a list, which is empty where it has none of them. It may have
    ``id``, ``split`` and ``group``. With the files' ``size``, ``mtime``, ``sha256``, ``width`` and
    ``height``, they are not read to be hashed while their size and time of modification are as listed.

    Args:
        root: the folder that the paths are relative to.
        file: the Parquet file.
    """
    if not root.is_dir():
        raise DataError(
            f"folder {root} does not exist: name the folder that the paths in {file} are relative to"
        )
    if find_spec("pyarrow") is None:
        raise DataError("the source 'parquet' needs pyarrow: pip install 'tlkit[parquet]'")
    table, names = _read(file)
    used = _labels_used(table)
    classes = names or tuple(sorted(used, key=natural))
    if len(classes) < 2:
        raise DataError(f"{file}: the column 'label' needs at least two classes, and has {len(used)}")
    if unknown := sorted(used.difference(classes)):
        raise DataError(f"{file}: labels that are not among its classes: {shortlist(unknown)}")
    samples = list(_samples(table, root, classes))
    labelled = [sample for sample in samples if sample.is_labelled]
    return Source(classes, labelled, [sample for sample in samples if not sample.is_labelled])


def _labels_used(table: Any) -> set[str]:
    """Returns the labels that images have."""
    from pyarrow import compute as pc

    labels = table["label"]
    flat = pc.list_flatten(labels) if _is_list(labels.type) else labels
    return {label for label in pc.unique(flat).to_pylist() if label is not None}


def _samples(table: Any, root: Path, classes: Sequence[str]) -> Iterator[Sample]:
    """Yields the images of a table."""
    import pyarrow as pa

    names, split_names = pa.array(classes, pa.string()), pa.array(SPLITS, pa.string())
    indices = {name: index for index, name in enumerate(classes)}
    # Python's values take more memory than the table, so that they are made for a part of it at a time
    for batch in table.to_batches():
        ids, paths = batch["id"].to_pylist(), batch["path"].to_pylist()
        positions = _positions(batch["split"], split_names)
        splits = (None if index is None else SPLITS[index] for index in positions)
        labels: Iterable[int | None] = repeat(None)
        several: Iterable[tuple[int, ...] | None] = repeat(None)
        if _is_list(batch["label"].type):
            several = (
                None if of_image is None else tuple(sorted(indices[name] for name in of_image))
                for of_image in batch["label"].to_pylist()
            )
        else:
            labels = _positions(batch["label"], names)
        # not strict: what all images lack is repeated without end
        for name, path, label, split, of_image, recorded, group in zip(
            ids, paths, labels, splits, several, _recorded(batch), batch["group"].to_pylist(), strict=False
        ):
            yield Sample(name, root / path, label, split, of_image, recorded, group or None)


def _positions(column: Any, names: Any) -> list[int | None]:
    """Returns the position of each of a column's values among these names."""
    from pyarrow import compute as pc

    positions: list[int | None] = pc.index_in(column, names).to_pylist()
    return positions


def _is_list(kind: Any) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind))


def _is_wrong(labels: list[str | None] | None) -> bool:
    """Returns whether an image's labels have null, an empty name or one name twice among them."""
    return labels is not None and not (all(labels) and len(set(labels)) == len(labels))


def _recorded(batch: Any) -> Iterable[RecordedFile | None]:
    """Returns what is known of each file."""
    if not all(name in batch.schema.names for name in RECORDED):
        return repeat(None)
    rows = zip(*(batch[name].to_pylist() for name in RECORDED), strict=True)
    return (None if None in values else RecordedFile(*values) for values in rows)


def _read(file: Path) -> tuple[Any, tuple[str, ...]]:
    """Returns a manifest as a table, checked, and its class names if it has them."""
    import pyarrow as pa
    from pyarrow import parquet as pq

    if not file.is_file():
        siblings = [path.name for path in file.parent.glob("*.parquet")]
        raise DataError(f"{file} does not exist{close_matches(file.name, siblings)}")
    try:
        check_regular(file)
        schema = pq.read_schema(file)
        if missing := [
            f"no column {name!r}{close_matches(name, schema.names)}"
            for name in REQUIRED
            if name not in schema.names
        ]:
            raise DataError(f"{file}: {'; '.join(missing)}; it has {shortlist(schema.names, 10)}")
        present = [name for name in (*REQUIRED, *OPTIONAL, *RECORDED) if name in schema.names]
        table = _read_table(file, present)
        classes = json.loads((schema.metadata or {}).get(CLASSES_KEY, b"[]"))
        types = {name: pa.int64() for name in ("size", "mtime", "width", "height")}
        if _is_list(table["label"].type):
            types["label"] = pa.list_(pa.string())
        columns = {name: table[name].cast(types.get(name, pa.string())) for name in present}
    except (OSError, ValueError, RecursionError, pa.ArrowException) as error:
        raise DataError(f"{file} cannot be read as a manifest in Parquet: {error}") from error
    if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
        raise DataError(f"{file} cannot be read: {CLASSES_KEY.decode()} is not a list of names")
    if len(set(classes)) < len(classes):
        raise DataError(f"{file} cannot be read: {CLASSES_KEY.decode()} has a name twice")
    if unusable := [ascii(name) for name in classes if SURROGATE.search(name)]:
        names = f"{CLASSES_KEY.decode()} has names that are not UTF-8: {shortlist(unusable)}"
        raise DataError(f"{file} cannot be read: {names}")
    columns.setdefault("id", columns["path"])
    for name in ("split", "group"):
        columns.setdefault(name, pa.chunked_array([pa.nulls(len(table), pa.string())]))
    _check(file, columns)
    return pa.table(columns), tuple(classes)


def _read_table(file: Path, columns: Sequence[str]) -> Any:
    """Returns the columns of a file whose rows are short: a few bytes may stand for many gigabytes.

    Raises:
        ValueError: rows are long.
    """
    import pyarrow as pa
    from pyarrow import parquet as pq

    batches = []
    with pq.ParquetFile(file) as content:
        for batch in content.iter_batches(ROWS, columns=list(columns)):
            # a value that is there once may stand in every row
            plain = {
                name: column.dictionary_decode() if pa.types.is_dictionary(column.type) else column
                for name, column in zip(batch.schema.names, batch.columns, strict=True)
            }
            batches.append(pa.RecordBatch.from_pydict(plain))
            if batches[-1].nbytes > ROWS * MAX_ROW:
                raise ValueError(f"its rows have more than {MAX_ROW:,} bytes")
        if not batches:
            return pq.read_table(file, columns=list(columns))
    return pa.Table.from_batches(batches)


def _check(file: Path, columns: dict[str, Any]) -> None:
    """Raises if a cell cannot be used; whole columns are checked at once, since there may be millions."""
    import pyarrow as pa
    from pyarrow import compute as pc

    def refuse(name: str, wrong: Any, problem: str) -> None:
        if rows := pc.indices_nonzero(pc.fill_null(wrong, False)).to_pylist():
            values = shortlist([f"row {row + 1}: {columns[name][row].as_py()!r}" for row in rows[:6]])
            raise DataError(f"{file}: {problem} in the column {name!r}: {values}")

    for name in ("path", "id"):
        refuse(name, pc.is_null(columns[name]), "nothing")
        refuse(name, pc.match_substring_regex(columns[name], CONTROL), "control characters")
    refuse("path", pc.equal(columns["path"], ""), "nothing")
    refuse("path", pc.match_substring_regex(columns["path"], OUTSIDE), "paths that are not below data.root")
    refuse("split", pc.invert(pc.is_in(columns["split"], pa.array([*SPLITS, None]))), "unknown splits")
    if _is_list(columns["label"].type):
        refuse("label", pa.array(map(_is_wrong, columns["label"].to_pylist()), pa.bool_()), "wrong labels")
    else:
        refuse("label", pc.equal(columns["label"], ""), "empty names")
    if "sha256" in columns:
        is_hash = pc.match_substring_regex(columns["sha256"], "^[0-9a-f]{64}$")
        refuse("sha256", pc.invert(is_hash), "no hashes")
    for name in ("width", "height"):
        if name in columns:
            refuse(name, pc.less(columns[name], 1), "numbers below 1")
    counts = pc.value_counts(columns["id"])
    if len(counts) < len(columns["id"]):
        twice = counts.filter(pc.greater(counts.field("counts"), 1)).field("values").to_pylist()
        raise DataError(f"{file}: images that are listed more than once: {shortlist(twice)}")
