"""The page of an audit: every finding with its photos."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image as PillowImage

from tlkit.analysis.audit_file import Audit, CopyGroup, LabelSuspect, Neighbour
from tlkit.analysis.audit_text import describe_audit
from tlkit.data.images import UnreadableImage, read_image
from tlkit.reporting.feature_map import SQUARE, Mark, make_map
from tlkit.reporting.pictures import Album, Picture
from tlkit.reporting.render import render, replaced_when_complete

#: How many findings of each kind are shown; all are in audit.json.
SHOWN = 40
#: How many images of a group of copies, and how many neighbours of a suspect are shown.
GROUP_SHOWN, NEIGHBOURS_SHOWN = 6, 3
#: Longest side of a photo, in pixels.
LONGEST = 180


@dataclass(frozen=True)
class Suspect:
    """An image that is probably labelled wrongly.

    Attributes:
        suspect: what was found.
        copies: ids of its copies with the suggested label.
        photo: the image.
        neighbours: the images most like it.
    """

    suspect: LabelSuspect
    copies: Sequence[str]
    photo: Picture
    neighbours: list[Picture]


@dataclass(frozen=True)
class Photos:
    """Images that belong together.

    Attributes:
        text: what is said about them.
        photos: the images, each with its id, class and split below it.
        more: how many are not shown.
    """

    text: str
    photos: list[Picture]
    more: int = 0


@dataclass(frozen=True)
class AuditPage:
    """The content of audit.html, from top to bottom.

    Attributes:
        audit: what was found.
        summary: the same in sentences.
        suspects: probable label errors.
        groups: copies; those under several labels first, then those across splits.
        series: similar images in different splits.
        unlike: images unlike all others.
        map: a map of the images by their features, or None.
        shown: how many findings of each kind are shown at most.
    """

    audit: Audit
    summary: list[str]
    suspects: list[Suspect]
    groups: list[Photos]
    series: list[Photos]
    unlike: list[Picture]
    map: Picture | None
    shown: int = SHOWN


def write_audit_page(audit: Audit, folder: Path) -> Path:
    """Writes ``audit.html`` and ``pictures/``.

    Args:
        audit: of images that are where it says.
        folder: the folder to write to.

    Returns:
        The page.

    Raises:
        ReportError: the page cannot be written.
    """
    page = folder / "audit.html"
    with replaced_when_complete(page) as unfinished:
        content = _make_page(audit, unfinished.album)
        unfinished.file.write_text(render("audit.html", content), encoding="utf-8")
    return page


def _make_page(audit: Audit, album: Album) -> AuditPage:
    photos = _PhotoMaker(audit, album)
    suspects = [
        Suspect(
            suspect,
            audit.copies_as_suggested(suspect),
            photos.make(suspect.image),
            [photos.make_neighbour(item) for item in photos.neighbours(suspect.image)[:NEIGHBOURS_SHOWN]],
        )
        for suspect in audit.labels.suspects[:SHOWN]
    ]
    ordered = sorted(audit.groups, key=lambda group: (not group.across_labels, not group.across_splits))
    return AuditPage(
        audit=audit,
        summary=describe_audit(audit),
        suspects=suspects,
        groups=[_group_photos(group, photos) for group in ordered[:SHOWN]],
        series=[
            Photos(f"similarity {pair.similarity:.3f}", [photos.make(image) for image in pair.images])
            for pair in audit.series[:SHOWN]
        ],
        unlike=[photos.make(image.image) for image in audit.unlike[:SHOWN]],
        map=_make_map(audit, album) if audit.map else None,
    )


def _make_map(audit: Audit, album: Album) -> Picture:
    marks = [
        Mark("label may be wrong", {suspect.image for suspect in audit.labels.suspects}),
        Mark("unlike all others", {item.image for item in audit.unlike}, SQUARE),
    ]
    return make_map(audit.map, list(audit.classes), marks, sum(audit.classes.values()), album)


def _group_photos(group: CopyGroup, photos: _PhotoMaker) -> Photos:
    remarks = ["under several labels"] if group.across_labels else []
    remarks += ["in several splits"] if group.across_splits else []
    shown: Sequence[str] = group.images[:GROUP_SHOWN]
    return Photos(
        ", ".join([f"{len(group.images)} copies", *remarks]),
        [photos.make(image) for image in shown],
        len(group.images) - len(shown),
    )


class _PhotoMaker:
    """Makes each image's picture once."""

    def __init__(self, audit: Audit, album: Album) -> None:
        self._audit = audit
        self._album = album
        self._made: dict[str, Picture] = {}

    def neighbours(self, image_id: str) -> Sequence[Neighbour]:
        """Returns the images most similar to one."""
        return self._audit.images[image_id].neighbours

    def make(self, image_id: str) -> Picture:
        """Makes the picture of an image that the audit names."""
        image = self._audit.images[image_id]
        split = f" ({image.split})" if image.split else ""
        return self._make(image_id, image.path, image.sha256, f"{image.label}: {image_id}{split}")

    def make_neighbour(self, neighbour: Neighbour) -> Picture:
        """Makes the picture of an image that is similar to one that the audit names."""
        caption = f"{neighbour.label}: {neighbour.image}"
        return self._make(neighbour.image, neighbour.path, neighbour.sha256, caption)

    def _make(self, image_id: str, path: str, sha256: str, caption: str) -> Picture:
        if image_id not in self._made:
            self._made[image_id] = self._photo(path, sha256)
        return replace(self._made[image_id], caption=caption)

    def _photo(self, path: str, sha256: str) -> Picture:
        try:
            photo = read_image(Path(self._audit.root or ".") / path, sha256)
        except UnreadableImage as error:
            return Picture(f"not shown: {error}", "data:,", LONGEST, LONGEST)
        photo.thumbnail((LONGEST, LONGEST), PillowImage.Resampling.LANCZOS)
        return self._album.photo(f"image-{len(self._made) + 1}", path, np.asarray(photo))
