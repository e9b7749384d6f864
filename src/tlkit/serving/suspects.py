"""What the page of a review shows and decides about."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from tlkit.analysis.audit_file import AuditedImage
from tlkit.data.corrections_file import Decision
from tlkit.serving.photos import Photos

SuspectKind = Literal["label", "copies", "unlike", "unlabelled"]


@dataclass(frozen=True)
class Suspect:
    """An image, or a pair of copies, that is decided about.

    Attributes:
        kind: its label is probably wrong, it has a copy under another label or in another split, it is
            unlike all others, or it has no label yet.
        image: the image's id.
        other: the other image of a pair.
        suggested: the label that is more probable.
        probability: of the given label; of the suggested one, where none is given.
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


class Decisions(Protocol):
    """Suspects and the decisions about them, in a file. Its methods may be called from several threads.

    Attributes:
        name: what is reviewed.
        path: the file of decisions.
        images: every image of a suspect, by id.
        suspects: in the order in which they are shown.
        photos: of these images and their neighbours.
        possible: the decisions that are possible.
    """

    name: str
    path: Path
    images: Mapping[str, AuditedImage]
    suspects: Sequence[Suspect]
    photos: Photos
    possible: Sequence[Decision]

    @property
    def classes(self) -> Sequence[str]:
        """The classes to choose from."""

    def verdicts(self) -> list[Verdict | None]:
        """Returns what was decided about each suspect; None: nothing yet."""

    def labels(self) -> dict[str, str]:
        """Returns the label that the decisions so far have given each image that they are about."""

    def decide(self, index: int, image: str, decision: Decision, new_label: str) -> None:
        """Saves a decision about a suspect.

        Args:
            index: which suspect.
            image: the image of it that the decision is about.
            decision: any but "undo".
            new_label: the label that "relabel" gives it.

        Raises:
            InvalidDecision: the suspect, image or label does not exist, or the photo has changed.
            AuditFileError: the file cannot be written.
        """

    def undo(self) -> int | None:
        """Saves that the last decision is undone.

        Returns:
            Which suspect it was about; None: there is no decision to undo.

        Raises:
            AuditFileError: the file cannot be written.
        """


def count_decided(decisions: Decisions) -> int:
    """Returns how many suspects are decided."""
    return sum(verdict is not None for verdict in decisions.verdicts())
