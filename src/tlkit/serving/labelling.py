"""Labels for the images of a list of `tlkit next`, in a CSV file that the source ``csv`` reads."""

from __future__ import annotations

import csv
import os
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

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
        root = path.parent.absolute()
        files, suspects = {}, []
        for row in _read_list(path):
            file = Path(os.path.abspath(row["path"]))  # noqa: PTH100  resolves "..", and no links
            if not file.is_relative_to(root):
                raise AuditFileError(
                    f"{path} cannot be used: {row['path']} is not in {path.parent}, its folder. "
                    "Let tlkit next write its list into a folder that holds all images"
                )
            image = file.relative_to(root).as_posix()
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
        self._labels = _read_labels(self.path) if self.path.exists() else {}
        self._decided = {image: label for image, label in self._labels.items() if image in files}
        listed = {suspect.suggested for suspect in suspects if suspect.suggested is not None}
        self._classes = listed if model is None else {*self.photos.predictor.classes}
        self._lock = threading.Lock()

    @property
    def classes(self) -> Sequence[str]:
        """The classifier's classes, or those that the list suggests, and all that were given."""
        return sorted(self._classes | {*self._labels.values()})

    def verdicts(self) -> list[Verdict | None]:
        """Returns what was decided about each image; None: nothing yet."""
        return [
            Verdict("relabel" if label else "unsure", suspect.image, label) if label is not None else None
            for suspect in self.suspects
            for label in (self._decided.get(suspect.image),)
        ]

    def labels(self) -> dict[str, str]:
        """Returns the labels that were given."""
        return {image: label for image, label in self._decided.items() if label}

    def decide(self, index: int, image: str, decision: Decision, new_label: str) -> None:
        """Saves an image's label, or leaves it open.

        Args:
            index: which image of the list.
            image: its id.
            decision: "relabel" or "unsure".
            new_label: the label; it may be a new class.

        Raises:
            InvalidDecision: the image or decision does not exist, or the photo has changed.
            AuditFileError: the file cannot be written.
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
            self._save(
                {key: label for key, label in self._decided.items() if key != image} | {image: new_label}
            )

    def undo(self) -> int | None:
        """Takes the last label back, also one that was given before the review began.

        Returns:
            Which image it was; None: none has been decided.

        Raises:
            AuditFileError: the file cannot be written.
        """
        with self._lock:
            if not self._decided:
                return None
            image = [*self._decided][-1]
            self._save({key: label for key, label in self._decided.items() if key != image})
            return next(index for index, suspect in enumerate(self.suspects) if suspect.image == image)

    def _save(self, decided: dict[str, str]) -> None:
        """Writes the labels in the order in which they were given, after those of other lists."""
        others = {image: label for image, label in self._labels.items() if image not in self.images}
        labels = others | {image: label for image, label in decided.items() if label}
        try:
            with (
                atomic_write(self.path) as temporary,
                temporary.open("w", encoding="utf-8", newline="") as file,
            ):
                # not escaped for spreadsheets: the source reads cells as they are
                csv.writer(file, lineterminator="\n").writerows([COLUMNS, *labels.items()])
        except OSError as error:
            raise AuditFileError(f"{self.path} cannot be written: {error.strerror or error}") from error
        self._labels, self._decided = labels, decided


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
    """Reads the labels that were given before, in their order."""
    header, rows = _read(path)
    if header != COLUMNS:
        raise AuditFileError(
            f"{path} has the columns {', '.join(header) or 'none'}, and labels are written with the columns "
            f"{', '.join(COLUMNS)} only: give it another name"
        )
    return {row["path"]: row["label"] for row in rows}


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
