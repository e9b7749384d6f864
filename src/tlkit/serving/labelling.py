"""Labels for the images of a list of `tlkit next`, in a CSV file that the source ``csv`` reads."""

from __future__ import annotations

import csv
import os
import re
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

from filelock import FileLock

from tlkit.analysis.audit_file import AuditedImage
from tlkit.data.corrections_file import Decision
from tlkit.errors import AuditFileError
from tlkit.serving.photos import Photos, photo_sha256
from tlkit.serving.suspects import InvalidDecision, Suspect, Verdict
from tlkit.utils.atomic_write import atomic_write
from tlkit.utils.csv_cells import unescape

#: The columns of the file of labels.
COLUMNS = ["path", "label"]


class Labelling:
    """Gives the images of a list their labels; see `Decisions`.

    Which images are left open ("unsure") is remembered until the review ends.

    Attributes:
        suspects: the images, in the list's order.
        path: labels.csv beside the list. Its paths are relative to its folder; images that were labelled
            before stay in it.
    """

    possible: Sequence[Decision] = ("relabel", "unsure")

    def __init__(self, path: Path, model: Path | None = None) -> None:
        """Reads a list and the labels that were given before.

        Args:
            path: the .csv file that `tlkit next` has written.
            model: a run or model folder, whose classes are offered and which shows where it looks.

        Raises:
            AuditFileError: the list, its images or the labels cannot be read.
            RunFolderError: `model` is no trained classifier.
        """
        self.name = path.name
        self.path = path.parent / "labels.csv"
        files, suspects = {}, []
        for row in _read_list(path):
            file = Path(row["path"])
            image = _inside(path.parent, file)
            if image is None:
                raise AuditFileError(
                    f"{path} cannot be used: {row['path']} is not in {path.parent}, its folder. "
                    "Let tlkit next write its list into a folder that holds all images"
                )
            if re.search(r"[\x00-\x1f\x7f]", image):
                raise AuditFileError(
                    f"{path} cannot be used: the name {image!r} has control characters: rename the file"
                )
            try:
                files[image] = (file, photo_sha256(file))
            except OSError as error:
                reason = error.strerror or error
                raise AuditFileError(f"{row['path']}, from {path}, cannot be read: {reason}") from error
            suspects.append(_suspect(image, row))
        self.suspects: Sequence[Suspect] = suspects
        self.images: Mapping[str, AuditedImage] = {
            image: AuditedImage(image=image, path=image, sha256=sha256, label="", split=None, neighbours=())
            for image, (_, sha256) in files.items()
        }
        self.photos = Photos(files, model)
        self._labels = _read_labels(self.path)
        self._unsure: set[str] = set()
        # images and the labels that they had before; those of earlier reviews had none
        self._undoable: list[tuple[str, str | None]] = [(image, None) for image in self.labels()]
        listed = {suspect.suggested for suspect in suspects if suspect.suggested is not None}
        self._classes = listed if model is None else {*self.photos.predictor.classes}
        self._lock = threading.Lock()

    @property
    def classes(self) -> Sequence[str]:
        """The classifier's classes, or those that the list suggests, and all that were given."""
        return sorted(self._classes | {label for label in self._labels.values() if label})

    def verdicts(self) -> list[Verdict | None]:
        """Returns what was decided about each image; None: nothing yet."""
        return [self._verdict(suspect.image) for suspect in self.suspects]

    def labels(self) -> dict[str, str]:
        """Returns the labels that the list's images have."""
        return {image: label for image, label in self._labels.items() if label and image in self.images}

    def decide(self, index: int, image: str, decision: Decision, new_label: str) -> None:
        """Saves an image's label, or leaves it open.

        Args:
            index: which image of the list.
            image: its id.
            decision: "relabel" or "unsure".
            new_label: the label; it may be a new class.

        Raises:
            InvalidDecision: the image or decision does not exist, or the photo has changed.
            AuditFileError: the labels cannot be read again or written.
        """
        if not 0 <= index < len(self.suspects) or self.suspects[index].image != image:
            raise InvalidDecision(f"image {index} of the list is not {image!r}")
        if decision not in self.possible or bool(new_label) != (decision == "relabel"):
            raise InvalidDecision(f"{decision} with the label {new_label!r} is not possible")
        if new_label != new_label.strip() or not new_label.isprintable():
            raise InvalidDecision(f"{new_label!r} is no name of a class")
        if problem := self.photos.problem(image):
            raise InvalidDecision(f"{problem}: start the review again")
        with self._lock:
            self._undoable.append((image, self._change(image, new_label)))

    def undo(self) -> int | None:
        """Takes the last decision back: the image has the label that it had before.

        Of an earlier review, the last label is removed.

        Returns:
            Which image it was; None: none has been decided.

        Raises:
            AuditFileError: the labels cannot be read again or written.
        """
        with self._lock:
            if not self._undoable:
                return None
            image, before = self._undoable[-1]
            self._change(image, before)
            self._undoable.pop()
            return next(index for index, suspect in enumerate(self.suspects) if suspect.image == image)

    def _verdict(self, image: str) -> Verdict | None:
        if label := self._labels.get(image):
            return Verdict("relabel", image, label)
        return Verdict("unsure", image, "") if image in self._unsure else None

    def _change(self, image: str, label: str | None) -> str | None:
        """Gives an image another label, as the file's last row; the others stay as they are there now.

        Another review, or an editor, may have written the file since it was read.

        Args:
            image: the image's id.
            label: the label; "": it is left open; None: nothing is decided.

        Returns:
            The label before, in the same form.
        """
        try:
            with FileLock(self.path.with_name(f".{self.path.name}.lock")):
                written = _read_labels(self.path)
                labels = {name: other for name, other in written.items() if name != image}
                if label:
                    labels[image] = label
                with (
                    atomic_write(self.path) as temporary,
                    temporary.open("w", encoding="utf-8", newline="") as file,
                ):
                    # not escaped for spreadsheets: the source reads cells as they are
                    csv.writer(file, lineterminator="\n").writerows([COLUMNS, *labels.items()])
        except OSError as error:
            raise AuditFileError(f"{self.path} cannot be written: {error.strerror or error}") from error
        before = written.get(image) or ("" if image in self._unsure else None)
        self._labels = labels
        self._unsure.discard(image)
        if label == "":
            self._unsure.add(image)
        return before


def _inside(folder: Path, file: Path) -> str | None:
    """Returns a file's path relative to a folder, with ``/``; None: it is elsewhere."""
    root, absolute = (Path(os.path.abspath(path)) for path in (folder, file))  # noqa: PTH100  follows no links
    return absolute.relative_to(root).as_posix() if absolute.is_relative_to(root) else None


def _suspect(image: str, row: dict[str, str]) -> Suspect:
    """Returns a row of the list; without a classifier, it suggests nothing."""
    try:
        probability = float(row["probability_1"]) if row.get("class_1") else None
    except (KeyError, ValueError):
        probability = None
    return Suspect("unlabelled", image, suggested=row.get("class_1") or None, probability=probability)


def _read_list(path: Path) -> list[dict[str, str]]:
    """Reads what `tlkit next` has written."""
    header, rows = _read(path)
    if "path" not in header:
        raise AuditFileError(
            f"{path} cannot be used: it has no column 'path', which a list of tlkit next has; "
            f"it has {', '.join(header) or 'none'}"
        )
    return [{name: unescape(cell) for name, cell in row.items()} for row in rows]


def _read_labels(path: Path) -> dict[str, str]:
    """Reads the labels that were given before, in their order; none if there is no such file."""
    if not path.exists():
        return {}
    header, rows = _read(path)
    if header != COLUMNS:
        raise AuditFileError(
            f"{path} has the columns {', '.join(header) or 'none'}, and labels are written with the columns "
            f"{', '.join(COLUMNS)} only: give it another name"
        )
    labels: dict[str, str] = {}
    for row in rows:
        image = _inside(path.parent, path.parent / row["path"]) or row["path"]
        if image in labels:
            raise AuditFileError(f"{path} cannot be used: it has {image!r} twice: keep one of the rows")
        labels[image] = row["label"]
    return labels


def _read(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    """Reads a CSV file's header and rows."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True, restkey="", restval="")
            rows = [{name: cell for name, cell in row.items() if name} for row in reader]
            return list(reader.fieldnames or ()), rows
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise AuditFileError(f"{path} cannot be read: {reason}") from error
