"""A review of an audit: suspects, and the decisions about them in a corrections file."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path, PureWindowsPath

from tlkit.analysis.audit_file import Audit, AuditedImage, Neighbour, read_audit
from tlkit.data.corrections_file import (
    Correction,
    Corrections,
    Decision,
    append_correction,
    read_corrections,
)
from tlkit.errors import AuditFileError, ServingError
from tlkit.inference.loading import find_model
from tlkit.parts.source import SPLITS
from tlkit.serving.labelling import Labelling
from tlkit.serving.photos import Photos
from tlkit.serving.suspects import Decisions, InvalidDecision, Suspect, Verdict


class Review:
    """Goes through the suspects of an audit; see `Decisions`.

    Attributes:
        audit: the audit.
        suspects: label errors, most probable first; copies; images unlike all others. An image whose
            suggested label is that of a copy is in the pair only.
        path: the corrections file.
    """

    possible: Sequence[Decision] = ("keep", "relabel", "remove", "same-photo", "unsure")

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
        self.suspects: Sequence[Suspect] = _suspects(self.audit)
        self._images = {suspect.images for suspect in self.suspects}
        self.name = self.audit.name
        self.images: Mapping[str, AuditedImage] = self.audit.images
        self.photos = Photos(_files(self.audit), _find_model(self.audit, model))
        self._lock = threading.Lock()
        self._corrections = read_corrections(self.path) if self.path.exists() else Corrections(self.path)

    @property
    def classes(self) -> Sequence[str]:
        """The audit's classes."""
        return tuple(self.audit.classes)

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
        """Appends a decision about a suspect; see `Decisions.decide`."""
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
            if problem := self.photos.problem(name):
                raise InvalidDecision(f"{problem}: audit the images again")
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

    def _append(self, row: Correction) -> None:
        append_correction(self.path, replace(row, time=datetime.now(UTC).isoformat(timespec="seconds")))
        self._corrections = read_corrections(self.path)

    def _left_out(self) -> set[str]:
        decided = self._corrections.of_images()
        return {image for image, (_, row) in decided.items() if row.leaves_out}


def _check(audit: Audit) -> None:
    """Raises unless an audit describes every image that it names, and knows every class."""
    pairs = [name for pair in audit.pairs for name in pair.images]
    labels = [suspect.image for suspect in audit.labels.suspects]
    for name in (*labels, *pairs, *(item.image for item in audit.unlike)):
        if name not in audit.images:
            raise AuditFileError(f"audit.json cannot be used: images does not describe {name!r}")
    if wrong := [name for name, image in audit.images.items() if name != image.image]:
        raise AuditFileError(f"audit.json cannot be used: images.{wrong[0]} describes another image")
    image_labels = [image.label for image in audit.images.values()]
    for label in (*image_labels, *(suspect.suggested for suspect in audit.labels.suspects)):
        if label not in audit.classes:
            raise AuditFileError(f"audit.json cannot be used: {label!r} is none of its classes")


def _find_model(audit: Audit, model: Path | None) -> Path | None:
    """Returns a classifier, or the run that was audited; None: there is none.

    Raises:
        RunFolderError: `model` is no trained classifier.
    """
    if model is not None:
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
        if audit.copies_as_suggested(label):
            continue  # the pair is shown: relabelling both images would exchange their labels
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
    target: Path | str,
    *,
    model: Path | str | None = None,
    port: int | None = None,
    ready: Callable[[Decisions, str], object] = lambda _decisions, _address: None,
) -> Decisions:
    """Serves a page that shows suspects or unlabelled images one by one, on this machine only, until Ctrl-C.

    Each decision is saved at once: about an audit's suspects in ``corrections.csv`` beside the audit, labels
    of a list of `tlkit next` in ``labels.csv`` beside the list.

    Args:
        target: audit.json, or the folder that holds it; or the .csv file of `tlkit next`.
        model: a run or model folder, which shows where it looks in the images; the run that was audited
            unless given.
        port: the page's port; a free one unless given.
        ready: is called with the review and the page's address as soon as it answers.

    Returns:
        The review, with all decisions.

    Raises:
        AuditFileError: the audit, the list or the decisions cannot be read.
        RunFolderError: `model` is no trained classifier.
        ServingError: the port is taken, or a package is missing.
    """
    if missing := [name for name in ("fastapi", "uvicorn") if find_spec(name) is None]:
        raise ServingError(f"{', '.join(missing)} missing: pip install 'tlkit[review]'")
    path, classifier = Path(target), Path(model) if model is not None else None
    reviewed: Decisions = Labelling(path, classifier) if path.suffix == ".csv" else Review(path, classifier)
    from tlkit.serving.review_app import serve_review

    try:
        serve_review(reviewed, port, lambda address: ready(reviewed, address))
    except KeyboardInterrupt:
        pass  # how a review ends
    return reviewed
