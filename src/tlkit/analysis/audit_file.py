"""The content of audit.json: what an audit has found."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from tlkit.errors import AuditFileError
from tlkit.parts.backbone import WeightsOrigin
from tlkit.parts.source import SplitName
from tlkit.utils.json_files import JsonModel, NonNegative, Proportion, read_json


class Neighbour(JsonModel):
    """A similar image.

    Attributes:
        image: its id.
        path: relative to the audit's root, or absolute.
        sha256: hash of the file's bytes.
        label: its class.
        similarity: cosine of the features.
    """

    image: str
    path: str
    sha256: str
    label: str
    similarity: float


class AuditedImage(JsonModel):
    """An image that something is said about.

    Attributes:
        image: its id.
        path: relative to the audit's root, or absolute.
        sha256: hash of the file's bytes.
        label: its class.
        split: its split, or None.
        neighbours: the most similar other images, most similar first.
    """

    image: str
    path: str
    sha256: str
    label: str
    split: SplitName | None
    neighbours: tuple[Neighbour, ...]


class Rejected(JsonModel):
    """An image that cannot be read, and why."""

    image: str
    reason: str


class CopyPair(JsonModel):
    """Two images that are the same photo.

    Attributes:
        images: their ids.
        kind: "equal" bytes, or "near": re-encoded, resized, mirrored, cropped or brightened.
        mirrored: whether one is the mirror image of the other.
        correlation: of their aligned pixels, 1 for equal bytes.
    """

    images: tuple[str, str]
    kind: Literal["equal", "near"]
    mirrored: bool = False
    correlation: float


class CopyGroup(JsonModel):
    """Images that are the same photo, directly or through one another.

    Attributes:
        images: their ids.
        across_splits: whether they are in several splits.
        across_labels: whether they have several labels.
    """

    images: tuple[str, ...]
    across_splits: bool
    across_labels: bool


class Series(JsonModel):
    """Two similar images in different splits that are no copies: probably of one object.

    Attributes:
        images: their ids.
        similarity: cosine of the features.
    """

    images: tuple[str, str]
    similarity: float


class LabelSuspect(JsonModel):
    """An image whose label is probably wrong.

    Attributes:
        image: its id.
        label: the given one.
        suggested: the one that is more probable.
        score: the higher, the more probable an error.
        probability: of the given label, by a probe that did not see the image.
    """

    image: str
    label: str
    suggested: str
    score: float
    probability: Proportion


class LabelErrors(JsonModel):
    """The suspects, most probable first, and how far to trust them.

    Attributes:
        suspects: the images.
        precision: estimated fraction of the suspects that are errors.
        recall: estimated fraction of all errors that are suspects.
        method: how both were estimated, in a sentence.
    """

    suspects: tuple[LabelSuspect, ...]
    precision: Proportion | None
    recall: Proportion | None
    method: str


class Unlike(JsonModel):
    """An image that resembles no other.

    Attributes:
        image: its id.
        label: its class.
        similarity: cosine of its features and those of the most similar image.
    """

    image: str
    label: str
    similarity: float


class Confusion(JsonModel):
    """Two classes that are confused with each other.

    Attributes:
        classes: their names.
        confused: number of images of either that the out-of-fold probe takes for the other.
        images: number of images of both.
    """

    classes: tuple[str, str]
    confused: NonNegative
    images: NonNegative


class Shortcut(JsonModel):
    """A trivial property that tells the classes apart, which a classifier may learn in their place.

    Attributes:
        property: "size", "brightness" or "border".
        accuracy: balanced, of a probe on that property alone, out of fold.
        chance: what guessing would reach.
        p: of the accuracy's being chance.
    """

    property: Literal["size", "brightness", "border"]
    accuracy: Proportion
    chance: Proportion
    p: Proportion


class MapPoint(JsonModel):
    """Where an image lies on a map on which images with similar features are close together.

    Attributes:
        image: its id.
        label: its class.
        x: from left to right, 0 to 1.
        y: from bottom to top, 0 to 1.
    """

    image: str
    label: str
    x: Proportion
    y: Proportion


class Audit(JsonModel):
    """What an audit has found in labelled images; the content of audit.json.

    Attributes:
        schema_version: version of the file's format; ``schema`` in JSON.
        name: what the images are called.
        target: what was audited, as it was named.
        root: the images' folder, absolute, where the source has one.
        backbone: the backbone's name.
        weights: where its weights come from.
        classes: number of images of each class that can be read.
        small_classes: names of classes that are too small.
        accuracy: balanced, of the out-of-fold probe; None: no image could be predicted.
        images: every image that is named below, by id.
        rejected: images that cannot be read.
        pairs: copies, pair by pair.
        groups: copies, group by group.
        series: similar images in different splits.
        labels: probable label errors.
        unlike: images unlike all others.
        confusions: pairs of classes that are confused, most confused first.
        shortcuts: trivial properties that tell classes apart.
        map: a map of the images, or of some of them where there are many; empty where there are few.
    """

    schema_version: Literal[1] = Field(1, alias="schema")
    name: str
    target: str
    root: str | None
    backbone: str
    weights: WeightsOrigin | None
    classes: dict[str, NonNegative]
    small_classes: tuple[str, ...]
    accuracy: Proportion | None
    images: dict[str, AuditedImage]
    rejected: tuple[Rejected, ...]
    pairs: tuple[CopyPair, ...]
    groups: tuple[CopyGroup, ...]
    series: tuple[Series, ...]
    labels: LabelErrors
    unlike: tuple[Unlike, ...]
    confusions: tuple[Confusion, ...]
    shortcuts: tuple[Shortcut, ...]
    map: tuple[MapPoint, ...] = ()

    def copies_as_suggested(self, suspect: LabelSuspect) -> tuple[str, ...]:
        """Returns the ids of a suspect's copies that have its suggested label.

        If there are any, its label and that of the pair are one question.
        """
        pairs = (pair.images for pair in self.pairs if suspect.image in pair.images)
        others = (image for images in pairs for image in images if image != suspect.image)
        return tuple(image for image in others if self.images[image].label == suspect.suggested)


def read_audit(path: Path) -> Audit:
    """Reads audit.json.

    Args:
        path: the file, or the folder that holds it.

    Raises:
        AuditFileError: there is none, or it is malformed.
    """
    file = path / "audit.json" if path.is_dir() else path
    return read_json(file, Audit, AuditFileError)
