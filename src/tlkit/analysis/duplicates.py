"""Finds images that are the same photo: equal files, and copies that were altered.

Copies are among the nearest neighbours of an image by the mean features of it and its mirror image, which are
those of a mirrored copy, too (a crop), or among those of either of them in some pixels (a small or heavily
compressed copy, whose features differ); their pixels decide.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tlkit.analysis.alignment import (
    THUMBNAIL,
    BoxSearch,
    align,
    correlate_details,
    invert,
    protrusion,
)
from tlkit.analysis.audit_file import CopyGroup, CopyPair
from tlkit.analysis.features import DatasetFeatures, LabelledImages
from tlkit.analysis.neighbours import Neighbours, nearest
from tlkit.analysis.thumbnails import Thumbnails, as_grey, read_pixels
from tlkit.data.images import Image
from tlkit.experiment.observer import Observer

#: Neighbours by features, and by 10 by 10 pixels, that are compared: they hold 99% of all copies; and the
#: cosines below which neighbours are no copies.
NEIGHBOURS, LEAST_SIMILARITY = 20, 0.2
PIXEL_NEIGHBOURS, LEAST_PIXEL_SIMILARITY = 2, 0.6
#: Correlations below which thumbnails are no copies: in a few pixels, in the aligned box, and of details.
ALIKE_COARSE, ALIKE_ALIGNED, ALIKE = 0.78, 0.88, 0.7
#: What divides copies from other photos of one object: the correlation of details in 48 by 48 pixels, and
#: how far one image reaches beyond the other, in halves of its side. See "Copies" in benchmarks/RESULTS.md.
COPY, MAX_PROTRUSION = 0.91, 0.025
#: Pairs that are worked on at a time.
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


def find_copies(features: DatasetFeatures, neighbours: Neighbours, observer: Observer) -> Copies:
    """Finds images with equal bytes, and re-encoded, resized, mirrored, cropped or brightened copies.

    A crop may lack up to 30% of each side.

    Args:
        features: the images with their features.
        neighbours: `NEIGHBOURS` of each image, by mean features.
        observer: is shown the progress.

    Raises:
        DataError: an image cannot be read any more.
    """
    equal, distinct, representative = _group_equal(features.labelled.images)
    near: list[CopyPair] = []
    if len(distinct) > 1:
        by_features = _pairs_by_features(neighbours, representative)
        with Thumbnails(distinct, observer) as thumbnails:
            candidates = _as_candidates(
                np.concatenate([by_features, _pairs_by_pixels(thumbnails)]), len(distinct)
            )
            near = confirm_copies(distinct, thumbnails, candidates, observer)
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


def _group_equal(images: Sequence[Image]) -> tuple[list[CopyPair], list[Image], NDArray[np.int64]]:
    """Finds images with equal bytes.

    Returns:
        The pairs, the images that differ, and which of these has each image's bytes, ``(N,)``.
    """
    pairs: list[CopyPair] = []
    distinct: list[Image] = []
    position: dict[str, int] = {}
    for image in images:
        if image.sha256 in position:
            ids = distinct[position[image.sha256]].sample.id, image.sample.id
            pairs.append(CopyPair(images=ids, kind="equal", correlation=1.0))
        else:
            position[image.sha256] = len(distinct)
            distinct.append(image)
    return pairs, distinct, np.array([position[image.sha256] for image in images])


def confirm_copies(
    images: Sequence[Image], thumbnails: Thumbnails, candidates: Candidates, observer: Observer
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


def _pairs_by_features(neighbours: Neighbours, representative: NDArray[np.int64]) -> NDArray[np.int64]:
    """Returns pairs of neighbours, upright and mirrored, each as one number: see `_as_candidates`.

    Args:
        neighbours: of all images, by features that are the same for an image and its mirror image.
        representative: which of the images that differ has each image's bytes, ``(N,)``.
    """
    row, column = np.nonzero(neighbours.similarities >= LEAST_SIMILARITY)
    first, second = representative[row], representative[neighbours.indices[row, column]]
    pairs = _pair_numbers(first, second, int(representative.max()) + 1)[first != second]
    return np.concatenate([2 * pairs, 2 * pairs + 1])


def _pairs_by_pixels(thumbnails: Thumbnails) -> NDArray[np.int64]:
    """Returns pairs of neighbours in a few pixels, upright or mirrored, each as one number."""
    upright, flipped = thumbnails.templates.numpy().swapaxes(0, 1)
    keys = []
    for is_mirrored, queries in ((0, None), (1, flipped)):
        neighbours = nearest(upright, PIXEL_NEIGHBOURS, queries=queries)
        row, column = np.nonzero(neighbours.similarities >= LEAST_PIXEL_SIMILARITY)
        pairs = _pair_numbers(row, neighbours.indices[row, column], len(upright))
        keys.append(2 * pairs + is_mirrored)
    return np.concatenate(keys)


def _pair_numbers(first: NDArray[np.int64], second: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """Returns a number for each pair of `count` images, in whatever order; each once, ``(N,)``."""
    pairs: NDArray[np.int64] = np.minimum(first, second) * count + np.maximum(first, second)
    return pairs


def _as_candidates(keys: NDArray[np.int64], count: int) -> Candidates:
    """Returns each pair once, with the first image as the whole.

    Args:
        keys: 2 · (lower position · `count` + other position), and 1 more for a mirror image: rows of three
            numbers would take three times the memory, and longer to sort.
        count: number of images.
    """
    pairs = torch.from_numpy(np.unique(keys))
    return Candidates(pairs // 2 // count, pairs // 2 % count, pairs % 2 == 1)


def _compare_thumbnails(
    thumbnails: Thumbnails, candidates: Candidates, observer: Observer
) -> tuple[Candidates, Tensor]:
    """Returns the pairs that look alike in 48 by 48 pixels, and where the part lies in the whole."""
    if not len(candidates.whole):
        return candidates, torch.empty(0, 4)
    similar, boxes = _search_boxes(candidates, thumbnails)
    details = torch.zeros(len(boxes))
    with observer.progress("comparing thumbnails", len(boxes), "pairs") as tick:
        for rows in torch.split(torch.arange(len(boxes)), BLOCK):
            pairs = similar.take(rows)
            wholes, parts = thumbnails.greys(pairs.whole), thumbnails.greys(pairs.part)
            parts = _mirror(parts, pairs.mirrored)
            plain, boxes[rows] = align(wholes, parts, boxes[rows], 24)
            aligned = (plain >= ALIKE_ALIGNED).nonzero()[:, 0]
            chosen = rows[aligned]
            details[chosen] = correlate_details(wholes[aligned], parts[aligned], boxes[chosen], 48)
            tick(len(rows))
    chosen = _better_directions(similar, details)
    chosen = chosen[details[chosen] >= ALIKE]
    return _larger_first(similar.take(chosen), boxes[chosen])


def _better_directions(candidates: Candidates, details: Tensor) -> Tensor:
    """Returns the row with the higher correlation of each pair, which was compared in both directions."""
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


def _search_boxes(candidates: Candidates, thumbnails: Thumbnails) -> tuple[Candidates, Tensor]:
    """Returns the pairs that are similar in a few pixels, with the boxes of one image in the other.

    Each image is sought in the other: only after alignment is it certain which of them holds the other.
    """
    both = Candidates(
        torch.cat([candidates.whole, candidates.part]),
        torch.cat([candidates.part, candidates.whole]),
        candidates.mirrored.repeat(2),
    )
    search = BoxSearch()
    chosen, boxes = [torch.empty(0, dtype=torch.int64)], [torch.empty(0, 4)]
    order = both.whole.argsort(stable=True)
    _, sizes = np.unique(both.whole.numpy(), return_counts=True)
    for rows in torch.split(order, sizes.tolist()):
        others = thumbnails.templates[both.part[rows], both.mirrored[rows].long()]
        correlations, searched = search(thumbnails.greys(both.whole[rows[:1]])[0], others)
        alike = correlations >= ALIKE_COARSE
        if alike.any():  # of few images; of all, boxes would take much memory
            chosen.append(rows[alike])
            boxes.append(searched[alike])
    return both.take(torch.cat(chosen)), torch.cat(boxes)


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
            pixels = as_grey(read_pixels(images, torch.from_numpy(involved), 2 * THUMBNAIL))
            wholes, parts = pixels[whole], _mirror(pixels[part], pairs.mirrored)
            sides = boxes[rows]
            for size in (48, 96):
                _, sides = align(wholes, parts, sides, size)
            details = correlate_details(wholes, parts, sides, 48)
            details[protrusion(sides) > MAX_PROTRUSION] = 0
            correlations[rows.numpy()] = details.double().numpy()
            tick(len(rows))
    return correlations


def _mirror(images: Tensor, chosen: Tensor) -> Tensor:
    """Returns images, those that are chosen as their mirror images."""
    return torch.where(chosen[:, None, None], images.flip(2), images)
