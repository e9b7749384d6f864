"""Writes CSV files that spreadsheets show instead of running, and that read back as they were."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Sequence
from typing import Protocol

#: A spreadsheet takes a cell that begins so for a formula (OWASP, "CSV injection"); and the sign of escaping.
_SPECIAL = ("=", "+", "-", "@", "\t", "\r", "'")
#: Matches the beginning of an escaped cell; the group is what remains of it.
ESCAPED = f"^'({'|'.join(map(re.escape, _SPECIAL))})"


class TextFile(Protocol):
    """What text can be written to."""

    def write(self, text: str, /) -> object: ...


def escape(cell: str) -> str:
    """Puts ``'`` in front of a cell that a spreadsheet would run."""
    return f"'{cell}" if cell.startswith(_SPECIAL) else cell


def unescape(cell: str) -> str:
    """Returns the cell that `escape` was given."""
    return cell[1:] if cell.startswith("'") and cell[1:].startswith(_SPECIAL) else cell


def write_rows(file: TextFile, rows: Iterable[Sequence[object]]) -> None:
    """Writes rows whose strings are escaped; numbers are written as they are."""
    plain = csv.writer(file, lineterminator="\n")
    quoted = csv.writer(file, lineterminator="\n", quoting=csv.QUOTE_ALL)
    for row in rows:
        cells = [escape(cell) if isinstance(cell, str) else cell for cell in row]
        # before Python 3.13, a carriage return is not quoted, and ends the row when it is read
        has_return = any(isinstance(cell, str) and "\r" in cell for cell in cells)
        (quoted if has_return else plain).writerow(cells)
