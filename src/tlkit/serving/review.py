"""A review of an audit: suspects, and the decisions about them in a corrections file."""

from __future__ import annotations

import hashlib
import io
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path, PureWindowsPath
from typing import TYPE_CHECKING, Literal

from tlkit.analysis.audit_file import Audit, AuditedImage, Neighbour, read_audit
from tlkit.data.corrections_file import (
    Correction,
    Corrections,
    Decision,
    append_correction,
    read_corrections,
)
from tlkit.data.images import MAX_BYTES, read_image
from tlkit.errors import AuditFileError, ServingError
from tlkit.parts.source import SPLITS
from tlkit.utils.regular_files import read_regular

if TYPE_CHECKING:
    from tlkit.inference.predictor import Predictor

Size = Literal["large", "small"]
#: The longer side of an image's preview, in pixels, and its quality as a JPEG.
PREVIEWS: dict[Size, int] = {"large": 640, "small": 240}
QUALITY = 85

SuspectKind = Literal["label", "copies", "unlike"]


@dataclass(frozen=True)
class Suspect:
    """An image, or a pair of copies, that is decided about.

    Attributes:
        kind: its label is probably wrong, it has a copy under another label or in another split, or it is
            unlike all others.
        image: the image's id.
        other: the other image of a pair.
        suggested: the label that is more probable.
        probability: of the given label.
        similarity: to the most similar image, or of the pair's pixels.
    """

    kind: SuspectKind
    image: str
    other: str | None = None
    suggested: str | None = None
    probability: float | None = None
    similarity: float | None = None

    @property
    def images(self) -> frozenset[str]:
        """The image, or both images of the pair."""
        return frozenset({self.image} if self.other is None else {self.image, self.other})


@dataclass(frozen=True)
class Verdict:
    """What was decided about a suspect.

    Attributes:
        decision: what; None: nothing, but an image of it is left out by the decision about another suspect.
        image: which image of a pair the decision is about.
        new_label: the label that it gets, or nothing.
    """

    decision: Decision | None
    image: str
    new_label: str


class InvalidDecision(Exception):
    """A decision that is not possible; the message is the reason."""


class Review:
    """Goes through the suspects of an audit. Its methods may be called from several threads.

    Attributes:
        audit: the audit.
        suspects: label errors, most probable first; copies; images unlike all others.
        path: the corrections file.
        model: a model or run folder that shows where it looks in an image, or None.
    """

    def __init__(self, audit: Path, model: Path | None = None) -> None:
        """Reads an audit and the decisions that were made before.

        Args:
            audit: audit.json or the folder that holds it; corrections.csv is beside it.
            model: a run or model folder; the run that was audited unless given.

        Raises:
            AuditFileError: the audit or the decisions cannot be read.
            RunFolderError: `model` is no trained classifier.
        """
        folder = audit if audit.is_dir() else audit.parent
        self.audit = read_audit(audit)
        _check(self.audit)
        self.path = folder / "corrections.csv"
        self.suspects = _suspects(self.audit)
        self._files = _files(self.audit)
        self._images = {suspect.images for suspect in self.suspects}
        self.model = _find_model(self.audit, model)
        self._lock, self._explaining = threading.Lock(), threading.Lock()
        self._predictor: Predictor | None = None
        self._corrections = read_corrections(self.path) if self.path.exists() else Corrections(self.path)

    @property
    def decided(self) -> int:
        """How many suspects are decided."""
        return sum(verdict is not None for verdict in self.verdicts())

    def verdicts(self) -> list[Verdict | None]:
        """Returns what was decided about each suspect; None: nothing yet."""
        rows = {row.images: row for row in self._corrections.decisions}
        left_out = self._left_out()
        verdicts: list[Verdict | None] = []
        for suspect in self.suspects:
            row = rows.get(suspect.images)
            if row is not None:
                verdicts.append(Verdict(row.decision, row.image, row.new_label))
            elif gone := sorted(suspect.images & left_out):
                verdicts.append(Verdict(None, gone[0], ""))
            else:
                verdicts.append(None)
        return verdicts

    def labels(self) -> dict[str, str]:
        """Returns the label that the decisions so far have given each image that they are about."""
        return {image: row.resulting_label for image, (_, row) in self._corrections.of_images().items()}

    def decide(self, index: int, image: str, decision: Decision, new_label: str) -> None:
        """Appends a decision about a suspect.

        Args:
            index: which suspect.
            image: the image of it that the decision is about.
            decision: any but "undo".
            new_label: the label that "relabel" gives it.

        Raises:
            InvalidDecision: the suspect, image or label does not exist, or the photo has changed.
            AuditFileError: the file cannot be written.
        """
        if not 0 <= index < len(self.suspects):
            raise InvalidDecision(f"there is no suspect {index}")
        suspect = self.suspects[index]
        if image not in suspect.images:
            raise InvalidDecision(f"suspect {index} is not about {image!r}")
        if (new_label in self.audit.classes) != (decision == "relabel"):
            raise InvalidDecision(f"{new_label!r} is no class" if new_label else "a new label is missing")
        if decision == "same-photo" and suspect.other is None:
            raise InvalidDecision("only of two images can be said that they are the same photo")
        for name in suspect.images:
            self._check_unchanged(name)
        with self._lock:
            other = next(iter(suspect.images - {image}), "")
            audited = self.audit.images[image]
            label = self.labels().get(image, audited.label)
            self._append(Correction(image, audited.sha256, decision, label, new_label, other))

    def undo(self) -> int | None:
        """Appends that the last decision is undone.

        Returns:
            Which suspect it was about; None: there is no decision to undo.

        Raises:
            AuditFileError: the file cannot be written.
        """
        with self._lock:
            own = [row for row in self._corrections.decisions if row.images in self._images]
            if not own:
                return None
            self._append(replace(own[-1], decision="undo", new_label=""))
            return next(
                index for index, suspect in enumerate(self.suspects) if suspect.images == own[-1].images
            )

    def preview(self, image: str, size: Size) -> bytes | None:
        """Returns an image that the audit names, small enough for the page, as an upright JPEG.

        Returns:
            The JPEG, or None: the audit does not name the image.

        Raises:
            UnreadableImage: it cannot be read any more, or has changed.
        """
        if image not in self._files:
            return None
        path, sha256 = self._files[image]
        pixels = read_image(path, sha256)
        pixels.thumbnail((PREVIEWS[size], PREVIEWS[size]))
        content = io.BytesIO()
        pixels.save(content, "JPEG", quality=QUALITY)
        return content.getvalue()

    def heat(self, image: str, label: str) -> bytes | None:
        """Returns where the classifier looks for a class in an image that the audit names, as a PNG.

        Returns:
            The PNG, or None: the audit does not name the image, or there is no classifier.

        Raises:
            UnreadableImage: the image cannot be read any more, or has changed.
            DataError: the classifier does not know the class.
            RunFolderError: the classifier cannot be loaded.
        """
        if image not in self._files or self.model is None:
            return None
        with self._explaining:
            from tlkit.inference.loading import load
            from tlkit.interpret.attribution import explain
            from tlkit.interpret.png import png_bytes

            self._predictor = self._predictor or load(self.model)
            pixels = read_image(*self._files[image])
            return png_bytes(explain(self._predictor, pixels, label=label).overlay())

    def _append(self, row: Correction) -> None:
        append_correction(self.path, replace(row, time=datetime.now(UTC).isoformat(timespec="seconds")))
        self._corrections = read_corrections(self.path)

    def _left_out(self) -> set[str]:
        decided = self._corrections.of_images()
        return {image for image, (_, row) in decided.items() if row.leaves_out}

    def _check_unchanged(self, image: str) -> None:
        path, sha256 = self._files[image]
        try:
            changed = hashlib.sha256(read_regular(path, MAX_BYTES)).hexdigest() != sha256
        except OSError as error:
            raise InvalidDecision(f"{image} cannot be read: {error.strerror or error}") from error
        if changed:
            raise InvalidDecision(f"{image} has changed since the audit: audit the images again")


def _check(audit: Audit) -> None:
    """Raises unless an audit describes every image that it names, and knows every class."""
    pairs = [name for pair in audit.pairs for name in pair.images]
    labels = [suspect.image for suspect in audit.labels.suspects]
    for name in (*labels, *pairs, *(item.image for item in audit.unlike)):
        if name not in audit.images:
            raise AuditFileError(f"audit.json cannot be used: images does not describe {name!r}")
    if wrong := [name for name, image in audit.images.items() if name != image.image]:
        raise AuditFileError(f"audit.json cannot be used: images.{wrong[0]} describes another image")
    given = [image.label for image in audit.images.values()]
    for label in (*given, *(suspect.suggested for suspect in audit.labels.suspects)):
        if label not in audit.classes:
            raise AuditFileError(f"audit.json cannot be used: {label!r} is none of its classes")


def _find_model(audit: Audit, model: Path | None) -> Path | None:
    """Returns a classifier, or the run that was audited; None: there is none.

    Raises:
        RunFolderError: `model` is no trained classifier.
    """
    if model is not None:
        # it loads torch, without which a review starts faster
        from tlkit.inference.loading import find_model

        return find_model(model)
    audited = Path(audit.target)
    return audited if (audited / "results.json").is_file() else None


def _suspects(audit: Audit) -> tuple[Suspect, ...]:
    """Lists the suspects of an audit, each image and each pair once."""
    suspects: dict[frozenset[str], Suspect] = {}
    for suspect in (*_label_suspects(audit), *_copy_suspects(audit), *_unlike_suspects(audit)):
        suspects.setdefault(suspect.images, suspect)
    return tuple(suspects.values())


def _label_suspects(audit: Audit) -> Iterator[Suspect]:
    for label in audit.labels.suspects:
        yield Suspect("label", label.image, None, label.suggested, label.probability)


def _copy_suspects(audit: Audit) -> Iterator[Suspect]:
    """Yields copies under two labels first, then those in two splits."""
    two_labels, two_splits = [], []
    for pair in audit.pairs:
        # of copies in two splits, the one that is trained on is the one to leave out
        first, second = sorted((audit.images[name] for name in pair.images), key=_by_split)
        suspect = Suspect("copies", first.image, second.image, similarity=pair.correlation)
        if first.label != second.label:
            two_labels.append(suspect)
        elif first.split != second.split:
            two_splits.append(suspect)
    yield from two_labels
    yield from two_splits


def _unlike_suspects(audit: Audit) -> Iterator[Suspect]:
    for strange in audit.unlike:
        yield Suspect("unlike", strange.image, similarity=strange.similarity)


def _by_split(image: AuditedImage) -> int:
    return SPLITS.index(image.split) if image.split else 0


def _files(audit: Audit) -> dict[str, tuple[Path, str]]:
    """Returns the file and the hash of every image that an audit names.

    Raises:
        AuditFileError: a path leads out of the audit's root.
    """
    neighbours = [neighbour for image in audit.images.values() for neighbour in image.neighbours]
    named: list[AuditedImage | Neighbour] = [*neighbours, *audit.images.values()]
    return {image.image: (_path(audit.root, image.path), image.sha256) for image in named}


def _path(root: str | None, path: str) -> Path:
    if Path(path).is_absolute():
        return Path(path)
    if root is None or PureWindowsPath(path).anchor or ".." in PureWindowsPath(path).parts:
        raise AuditFileError(
            f"audit.json cannot be used: the path {path!r} leads out of the images' folder, {root}"
        )
    return Path(root) / path


def review(
    audit: Path | str,
    *,
    model: Path | str | None = None,
    port: int | None = None,
    ready: Callable[[Review, str], object] = lambda _review, _address: None,
) -> Review:
    """Serves a page that shows an audit's suspects one by one, on this machine only, until Ctrl-C.

    Each decision is appended to ``corrections.csv`` beside the audit at once.

    Args:
        audit: audit.json, or the folder that holds it.
        model: a run or model folder, which shows where it looks in the suspects; the run that was audited
            unless given.
        port: the page's port; a free one unless given.
        ready: is called with the review and the page's address as soon as it answers.

    Returns:
        The review, with all decisions.

    Raises:
        AuditFileError: the audit or its corrections cannot be read.
        RunFolderError: `model` is no trained classifier.
        ServingError: the port is taken, or a package is missing.
    """
    if missing := [name for name in ("fastapi", "uvicorn") if find_spec(name) is None]:
        raise ServingError(f"{', '.join(missing)} missing: pip install 'tlkit[review]'")
    reviewed = Review(Path(audit), Path(model) if model is not None else None)
    from tlkit.serving.review_app import serve_review

    try:
        serve_review(reviewed, port, lambda address: ready(reviewed, address))
    except KeyboardInterrupt:
        pass  # how a review ends
    return reviewed
