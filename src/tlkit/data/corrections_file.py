"""A file of decisions about images and their labels, which is only ever appended to.

The last decision about an image counts. Image files are never touched.
"""

from __future__ import annotations

import csv
import io
import os
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Literal, get_args

from tlkit.errors import AuditFileError, close_matches
from tlkit.utils.csv_cells import unescape, write_rows
from tlkit.utils.formatting import bulleted, plural
from tlkit.utils.regular_files import read_regular

#: "undo" cancels the last decision about its image, or about its pair of images.
Decision = Literal["keep", "relabel", "remove", "same-photo", "unsure", "undo"]
LEAVING_OUT: tuple[Decision, ...] = ("remove", "same-photo")


@dataclass(frozen=True)
class Correction:
    """A row of a corrections file: one decision.

    Attributes:
        image: the image's id.
        sha256: hash of the file's bytes.
        decision: "keep" and "unsure" leave the label; "relabel" changes it; "remove" leaves the image out,
            and so does "same-photo", in favour of the other image.
        label: the image's label when it was decided.
        new_label: the label that "relabel" gives it.
        other: the other image of a pair of copies.
        time: when it was decided, in ISO 8601.
    """

    image: str
    sha256: str
    decision: Decision
    label: str
    new_label: str = ""
    other: str = ""
    time: str = ""

    @property
    def images(self) -> frozenset[str]:
        """The image, or both images of a pair."""
        return frozenset({self.image, self.other} - {""})

    @property
    def resulting_label(self) -> str:
        """The image's label after the decision."""
        return self.new_label if self.decision == "relabel" else self.label

    @property
    def leaves_out(self) -> bool:
        """Whether the image is left out."""
        return self.decision in LEAVING_OUT


COLUMNS = [field.name for field in fields(Correction)]
HEADER = ",".join(COLUMNS)


@dataclass(frozen=True)
class Corrections:
    """The content of a corrections file.

    Attributes:
        path: the file.
        rows: the decisions that were not undone, with their line numbers.
        cut_short: whether the last line is not complete and was ignored, as a full disk may leave it.
    """

    path: Path
    rows: tuple[tuple[int, Correction], ...] = ()
    cut_short: bool = False

    @property
    def decisions(self) -> list[Correction]:
        """The decisions that were not undone, in their order."""
        return [row for _, row in self.rows]

    def of_images(self) -> dict[str, tuple[int, Correction]]:
        """Returns the decision that counts for each image, with its line number."""
        return {row.image: (line, row) for line, row in self.rows}


def read_corrections(path: Path) -> Corrections:
    """Reads a corrections file.

    Raises:
        AuditFileError: it cannot be read, or a line is malformed.
    """
    if not path.is_file():
        siblings = [file.name for file in path.parent.glob("*.csv")] if path.parent.is_dir() else []
        raise AuditFileError(f"{path} does not exist{close_matches(path.name, siblings)}")
    lines, last = _read_lines(path)
    cut_short = _is_cut_short(last)
    if not cut_short:
        lines.append(last.decode("utf-8-sig", errors="replace"))
    if any(lines) and lines[0].rstrip("\r") != HEADER:
        raise AuditFileError(f"{path} cannot be read: its first line must be {HEADER}")
    rows: list[tuple[int, Correction]] = []
    problems = []
    for number, line in enumerate(lines[1:], 2):
        if not line.strip():
            continue
        parsed = _parse(line)
        problem = parsed if isinstance(parsed, str) else _add(rows, number, parsed)
        if problem:
            problems.append(f"line {number}: {problem}")
    if problems:
        raise AuditFileError(bulleted(f"{path} cannot be read", problems))
    return Corrections(path, tuple(rows), cut_short)


def append_correction(path: Path, correction: Correction) -> None:
    """Appends a row to a corrections file, and returns when it is on the disk.

    Nothing is rewritten. A last line that is not complete, which was never a decision, is cut off first.

    Raises:
        AuditFileError: it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab+", buffering=0) as file:
            file.seek(0)
            content = file.readall()
            last = content[content.rfind(b"\n") + 1 :]
            if _is_cut_short(last):
                content = content.removesuffix(last)
                file.truncate(len(content))
            text = io.StringIO()
            write_rows(text, [*([] if content else [COLUMNS]), astuple(correction)])
            separator = b"\n" if content and not content.endswith(b"\n") else b""
            row = separator + text.getvalue().encode()
            if file.write(row) != len(row):
                file.truncate(len(content))
                raise OSError("the disk is full")
            os.fsync(file.fileno())
    except OSError as error:
        raise AuditFileError(f"{path} cannot be written: {error.strerror or error}") from error


def _read_lines(path: Path) -> tuple[list[str], bytes]:
    """Returns a file's lines, and what follows the last line break.

    Ids and class names hold no line breaks, so that each line is a row of its own.
    """
    try:
        head, line_break, last = read_regular(path).rpartition(b"\n")
        return (head.decode("utf-8-sig").split("\n") if line_break else []), last
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise AuditFileError(f"{path} cannot be read: {reason}") from error


def _cells(line: str) -> list[str]:
    return [unescape(cell) for cell in next(csv.reader([line.rstrip("\r")], strict=True), [])]


def _is_cut_short(last: bytes) -> bool:
    """Returns whether what follows the last line break is the beginning of a row only."""
    text = last.decode(errors="replace")
    if HEADER.startswith(text):
        return text not in ("", HEADER)
    try:
        return len(_cells(text)) < len(COLUMNS)
    except csv.Error:  # within a quoted cell
        return True


def _parse(line: str) -> Correction | str:
    """Returns a line's row, or what is wrong with it."""
    try:
        cells = _cells(line)
    except csv.Error as error:
        return str(error)
    if len(cells) != len(COLUMNS):
        return f"has {plural(len(cells), 'cell')}, and must have {len(COLUMNS)}"
    image, sha256, decision, label, new_label, other, time = cells
    if decision not in get_args(Decision):
        return (
            f"{decision!r} is no decision{close_matches(decision, get_args(Decision))}: "
            f"it must be {', '.join(get_args(Decision))}"
        )
    empty = [name for name, cell in (("image", image), ("sha256", sha256), ("label", label)) if not cell]
    needed = {"relabel": ("new_label", new_label), "same-photo": ("other", other)}
    if decision in needed and not needed[decision][1]:
        empty.append(needed[decision][0])
    if empty:
        return f"{' and '.join(empty)} must not be empty"
    # validated above, which a type checker does not see through
    return Correction(image, sha256, decision, label, new_label, other, time)  # type: ignore[arg-type]


def _add(rows: list[tuple[int, Correction]], line: int, row: Correction) -> str | None:
    """Adds a decision, or removes the one that it undoes; returns what is wrong with it, or None."""
    if row.decision != "undo":
        rows.append((line, row))
        return None
    undone = [index for index, (_, earlier) in enumerate(rows) if earlier.images == row.images]
    if not undone:
        return f"there is no decision about {row.image!r} to undo"
    del rows[undone[-1]]
    return None
