"""Finds images that are the same photo: equal files, and copies that were changed on the way.

Copies are among the nearest neighbours of an image or its mirror image, by their features (a crop) or in some
pixels (a small or heavily compressed copy, whose features differ); their pixels decide.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tlkit.analysis.alignment import (
    THUMBNAIL,
    BoxSearch,
    align,
    coarse_templates,
    correlate_details,
    invert,
    protrusion,
)
from tlkit.analysis.audit_file import CopyGroup, CopyPair
from tlkit.analysis.features import DatasetFeatures, LabelledImages
from tlkit.analysis.neighbours import nearest
from tlkit.data.images import Image, UnreadableImage, read_thumbnail
from tlkit.errors import DataError
from tlkit.experiment.observer import Observer
from tlkit.runtime.processors import reader_threads

#: Neighbours by features, and by 10 by 10 pixels, that are compared: they hold 99% of all copies; and the
#: cosines below which neighbours are no copies.
NEIGHBOURS, LEAST_SIMILARITY = 20, 0.2
PIXEL_NEIGHBOURS, LEAST_PIXEL_SIMILARITY = 2, 0.6
#: Correlations below which thumbnails are no copies: in a few pixels, in the aligned box, and of details.
ALIKE_COARSE, ALIKE_ALIGNED, ALIKE = 0.78, 0.88, 0.7
#: What divides copies from other photos of one object: the correlation of details in 48 by 48 pixels, and
#: how far one image reaches beyond the other, in halves of its side. See "Copies" in benchmarks/RESULTS.md.
COPY, MAX_PROTRUSION = 0.91, 0.025
#: Images or pairs that are worked on at a time.
BLOCK = 256


@dataclass(frozen=True)
class Copies:
    """Images that are the same photo.

    Attributes:
        pairs: equal files first, then copies by falling correlation. Of many equal files, each is paired
            with the first one.
        groups: the images that pairs connect, the largest group first.
    """

    pairs: tuple[CopyPair, ...]
    groups: tuple[CopyGroup, ...]


@dataclass(frozen=True)
class Candidates:
    """Pairs of images to compare: positions ``(N,)``, and whether one is the mirror image of the other.

    The part may be a crop of the whole.
    """

    whole: Tensor
    part: Tensor
    mirrored: Tensor

    def take(self, rows: Tensor) -> Candidates:
        """Returns these rows."""
        return Candidates(self.whole[rows], self.part[rows], self.mirrored[rows])


def find_copies(features: DatasetFeatures, observer: Observer) -> Copies:
    """Finds images with equal bytes, and re-encoded, resized, mirrored, cropped or brightened copies.

    A crop may lack up to 30% of each side.

    Args:
        features: the images with their features.
        observer: is shown the progress.

    Raises:
        DataError: an image cannot be read any more.
    """
    images = features.labelled.images
    equal, distinct = _group_equal(images)
    near: list[CopyPair] = []
    if len(distinct) > 1:
        chosen = [images[index] for index in distinct]
        # before thumbnails are read: with many images, copies of both would not fit into memory
        by_features = _neighbour_pairs(
            features.plain, features.mirrored, distinct, NEIGHBOURS, LEAST_SIMILARITY
        )
        thumbnails = read_thumbnails(chosen, observer)
        upright, flipped = _templates(thumbnails).numpy().swapaxes(0, 1)
        everything = np.arange(len(chosen))
        by_pixels = _neighbour_pairs(upright, flipped, everything, PIXEL_NEIGHBOURS, LEAST_PIXEL_SIMILARITY)
        candidates = _as_candidates(by_features, by_pixels)
        near = confirm_copies(chosen, thumbnails, candidates, observer)
    pairs = (*equal, *near)
    return Copies(pairs, group_copies(pairs, features.labelled))


def group_copies(pairs: Iterable[CopyPair], labelled: LabelledImages) -> tuple[CopyGroup, ...]:
    """Returns the connected components of pairs, the largest first."""
    groups: dict[str, list[str]] = {}
    for pair in pairs:
        first, second = (groups.setdefault(image, [image]) for image in pair.images)
        if first is not second:
            first += second
            for image in second:
                groups[image] = first
    position = {image.sample.id: index for index, image in enumerate(labelled.images)}
    copies = []
    for members in {id(group): sorted(group) for group in groups.values()}.values():
        rows = [position[image] for image in members]
        splits = {labelled.splits[row] for row in rows} - {None}
        labels = {labelled.images[row].sample.label for row in rows}
        copies.append(
            CopyGroup(images=tuple(members), across_splits=len(splits) > 1, across_labels=len(labels) > 1)
        )
    return tuple(sorted(copies, key=lambda group: (-len(group.images), group.images)))


def _group_equal(images: Sequence[Image]) -> tuple[list[CopyPair], NDArray[np.int64]]:
    """Returns the pairs of images with equal bytes, and the positions of the first of each."""
    first: dict[str, int] = {}
    pairs = []
    for index, image in enumerate(images):
        earlier = first.setdefault(image.sha256, index)
        if earlier != index:
            ids = images[earlier].sample.id, image.sample.id
            pairs.append(CopyPair(images=ids, kind="equal", correlation=1.0))
    return pairs, np.array([*first.values()], np.int64)


def read_thumbnails(images: Sequence[Image], observer: Observer) -> Tensor:
    """Reads small grey images, uint8 ``(N, THUMBNAIL, THUMBNAIL)``.

    Raises:
        DataError: an image cannot be read any more.
    """
    thumbnails = torch.empty(len(images), THUMBNAIL, THUMBNAIL, dtype=torch.uint8)
    with observer.progress("reading thumbnails", len(images), "images") as tick:
        for rows in torch.split(torch.arange(len(images)), BLOCK):
            thumbnails[rows] = _read_pixels(images, rows, THUMBNAIL)
            tick(len(rows))
    return thumbnails


def confirm_copies(
    images: Sequence[Image], thumbnails: Tensor, candidates: Candidates, observer: Observer
) -> list[CopyPair]:
    """Returns those of the candidates that are copies by their pixels, by falling correlation.

    Raises:
        DataError: an image cannot be read any more.
    """
    similar, boxes = _compare_thumbnails(thumbnails, candidates, observer)
    if not len(boxes):
        return []
    correlations = _compare_closely(images, similar, boxes, observer)
    best: dict[tuple[int, int], tuple[float, bool]] = {}
    for row in np.flatnonzero(correlations >= COPY).tolist():
        pair = int(similar.whole[row]), int(similar.part[row])
        value = float(correlations[row]), bool(similar.mirrored[row])
        best[min(pair), max(pair)] = max(best.get((min(pair), max(pair)), value), value)
    pairs = [
        CopyPair(
            images=(images[first].sample.id, images[second].sample.id),
            kind="near",
            mirrored=mirrored,
            correlation=round(min(correlation, 1.0), 4),
        )
        for (first, second), (correlation, mirrored) in best.items()
    ]
    return sorted(pairs, key=lambda pair: (-pair.correlation, pair.images))


def _neighbour_pairs(
    images: NDArray[np.float32],
    mirror_images: NDArray[np.float32],
    rows: NDArray[np.int64],
    count: int,
    least: float,
) -> NDArray[np.int64]:
    """Returns pairs among some rows, ``(N, 3)``: the lower position, the other, whether mirrored."""
    pairs = []
    for is_mirrored, queries in ((0, None), (1, mirror_images)):
        neighbours = nearest(images, count, queries=queries, rows=rows)
        row, column = np.nonzero(neighbours.similarities >= least)
        other = neighbours.indices[row, column]
        sides = np.minimum(row, other), np.maximum(row, other), np.full(len(row), is_mirrored)
        pairs.append(np.stack(sides, 1))
    return np.concatenate(pairs)


def _as_candidates(*pairs: NDArray[np.int64]) -> Candidates:
    """Returns each pair once, with the first image as the whole."""
    whole, part, is_mirrored = torch.from_numpy(np.unique(np.concatenate(pairs), axis=0)).unbind(1)
    return Candidates(whole, part, is_mirrored.bool())


def _templates(thumbnails: Tensor) -> Tensor:
    return torch.cat([coarse_templates(_as_grey(part)) for part in torch.split(thumbnails, BLOCK)])


def _compare_thumbnails(
    thumbnails: Tensor, candidates: Candidates, observer: Observer
) -> tuple[Candidates, Tensor]:
    """Returns the pairs that look alike in 48 by 48 pixels, and where the part lies in the whole."""
    if not len(candidates.whole):
        return candidates, torch.empty(0, 4)
    similar, boxes = _search_boxes(candidates, thumbnails)
    details = torch.zeros(len(boxes))
    with observer.progress("comparing thumbnails", len(boxes), "pairs") as tick:
        for rows in torch.split(torch.arange(len(boxes)), BLOCK):
            wholes, parts = _pixels(similar.take(rows), thumbnails)
            plain, boxes[rows] = align(wholes, parts, boxes[rows], 24)
            aligned = (plain >= ALIKE_ALIGNED).nonzero()[:, 0]
            chosen = rows[aligned]
            details[chosen] = correlate_details(wholes[aligned], parts[aligned], boxes[chosen], 48)
            tick(len(rows))
    chosen = _better_directions(similar, details)
    chosen = chosen[details[chosen] >= ALIKE]
    return _larger_first(similar.take(chosen), boxes[chosen])


def _better_directions(candidates: Candidates, details: Tensor) -> Tensor:
    """Returns one row of each pair: where an image is sought in the other, or the other in it."""
    order = details.argsort(descending=True, stable=True)
    chosen = candidates.take(order)
    lower, upper = torch.minimum(chosen.whole, chosen.part), torch.maximum(chosen.whole, chosen.part)
    pairs = torch.stack([lower, upper, chosen.mirrored.long()])
    _, first = np.unique(pairs.numpy(), axis=1, return_index=True)
    return order[torch.from_numpy(first)]


def _larger_first(candidates: Candidates, boxes: Tensor) -> tuple[Candidates, Tensor]:
    """Exchanges whole and part where the box is larger than the whole."""
    exchanged = boxes[:, 1] * boxes[:, 3] > 1
    inverse = invert(boxes)
    # the other image is the mirrored one now
    inverse[:, 2] = torch.where(candidates.mirrored, -inverse[:, 2], inverse[:, 2])
    whole = torch.where(exchanged, candidates.part, candidates.whole)
    part = torch.where(exchanged, candidates.whole, candidates.part)
    return (
        Candidates(whole, part, candidates.mirrored),
        torch.where(exchanged[:, None], inverse, boxes),
    )


def _search_boxes(candidates: Candidates, thumbnails: Tensor) -> tuple[Candidates, Tensor]:
    """Returns the pairs that are similar in a few pixels, with the boxes of one image in the other.

    Each image is sought in the other: only after alignment is it certain which of them holds the other.
    """
    templates = _templates(thumbnails)
    count = len(candidates.whole)
    both = Candidates(
        torch.cat([candidates.whole, candidates.part]),
        torch.cat([candidates.part, candidates.whole]),
        candidates.mirrored.repeat(2),
    )
    search = BoxSearch()
    correlations, boxes = torch.empty(2 * count), torch.empty(2 * count, 4)
    order = both.whole.argsort(stable=True)
    _, sizes = np.unique(both.whole.numpy(), return_counts=True)
    for rows in torch.split(order, sizes.tolist()):
        others = templates[both.part[rows], both.mirrored[rows].long()]
        correlations[rows], boxes[rows] = search(_as_grey(thumbnails[both.whole[rows[0]]]), others)
    rows = (correlations >= ALIKE_COARSE).nonzero()[:, 0]
    return both.take(rows), boxes[rows]


def _compare_closely(
    images: Sequence[Image], candidates: Candidates, boxes: Tensor, observer: Observer
) -> NDArray[np.float64]:
    """Returns the correlations of details, after close alignment; 0 where no image lies within the other."""
    correlations = np.zeros(len(boxes))
    with observer.progress("comparing images", len(boxes), "pairs") as tick:
        for rows in torch.split(torch.arange(len(boxes)), BLOCK // 4):
            pairs = candidates.take(rows)
            involved, positions = np.unique(np.stack([pairs.whole, pairs.part]), return_inverse=True)
            whole, part = torch.from_numpy(positions.reshape(2, -1))
            pixels = _read_pixels(images, torch.from_numpy(involved), 2 * THUMBNAIL)
            wholes, parts = _pixels(Candidates(whole, part, pairs.mirrored), pixels)
            sides = boxes[rows]
            for size in (48, 96):
                _, sides = align(wholes, parts, sides, size)
            details = correlate_details(wholes, parts, sides, 48)
            details[protrusion(sides) > MAX_PROTRUSION] = 0
            correlations[rows.numpy()] = details.double().numpy()
            tick(len(rows))
    return correlations


def _read_pixels(images: Sequence[Image], chosen: Tensor, side: int) -> Tensor:
    """Returns thumbnails of the chosen images, uint8 ``(n, side, side)``."""

    def read(index: int) -> NDArray[np.uint8]:
        sample = images[index].sample
        try:
            return np.array(read_thumbnail(sample.path, side).convert("L"))
        except UnreadableImage as error:
            raise DataError(f"{sample.path} cannot be read any more: {error}") from error

    with ThreadPoolExecutor(reader_threads()) as pool:
        return torch.from_numpy(np.stack(list(pool.map(read, chosen.tolist()))))


def _pixels(candidates: Candidates, thumbnails: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the greys of wholes and of parts, mirrored where the candidates say so."""
    parts = _as_grey(thumbnails[candidates.part])
    parts = torch.where(candidates.mirrored[:, None, None], parts.flip(2), parts)
    return _as_grey(thumbnails[candidates.whole]), parts


def _as_grey(thumbnails: Tensor) -> Tensor:
    """Returns greys from 0 to 1."""
    return thumbnails.float() / 255
