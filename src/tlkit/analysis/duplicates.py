"""Finds images that are the same photo: equal files, and copies that were changed on the way.

Copies are among the nearest neighbours by features, of the image or of its mirror image; their pixels decide.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tlkit.analysis.alignment import THUMBNAIL, BoxSearch, coarse_templates, correlate
from tlkit.analysis.audit_file import CopyGroup, CopyPair
from tlkit.analysis.features import DatasetFeatures, LabelledImages
from tlkit.analysis.neighbours import nearest
from tlkit.data.images import Image, UnreadableImage, read_thumbnail
from tlkit.errors import DataError
from tlkit.experiment.observer import Observer, Tick
from tlkit.runtime.devices import reader_threads

#: Neighbours whose pixels are compared: they hold 99.8% of all copies.
NEIGHBOURS = 8
#: Cosine of centred features below which there are no copies, but for one in a hundred.
LEAST_SIMILARITY = 0.4
#: Correlations that copies have at least: in a few pixels, in the refined box, and of details. The last one
#: divides copies from photos of one object; see "Copies" in benchmarks/RESULTS.md.
COARSE_COPY, ALIGNED_COPY, COPY = 0.78, 0.9, 0.9
#: Thumbnails that are converted at a time.
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
        candidates = _find_candidates(features.plain[distinct], features.mirrored[distinct])
        near = confirm_copies([images[index] for index in distinct], candidates, observer)
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
    found = []
    for members in {id(group): sorted(group) for group in groups.values()}.values():
        rows = [position[image] for image in members]
        splits = {labelled.splits[row] for row in rows} - {None}
        labels = {labelled.images[row].sample.label for row in rows}
        found.append(
            CopyGroup(images=tuple(members), across_splits=len(splits) > 1, across_labels=len(labels) > 1)
        )
    return tuple(sorted(found, key=lambda group: (-len(group.images), group.images)))


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


def confirm_copies(images: Sequence[Image], candidates: Candidates, observer: Observer) -> list[CopyPair]:
    """Returns those of the candidates that are copies by their pixels, by falling correlation.

    Raises:
        DataError: an image cannot be read any more.
    """
    involved = torch.from_numpy(np.union1d(candidates.whole.numpy(), candidates.part.numpy()))
    with observer.progress("reading thumbnails", len(involved), "images") as tick:
        thumbnails = _read_thumbnails(images, involved, tick)
    similar, boxes = _search_boxes(candidates, thumbnails)
    with observer.progress("comparing images", len(boxes), "pairs") as tick:
        correlations = _correlate(similar, boxes, thumbnails, tick)
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


def _find_candidates(plain: NDArray[np.float32], mirrored: NDArray[np.float32]) -> Candidates:
    """Returns the pairs of neighbours, each once, with the first image as the whole."""
    found = []
    for is_mirrored, queries in ((False, None), (True, mirrored)):
        neighbours = nearest(plain, NEIGHBOURS, queries=queries)
        row, column = np.nonzero(neighbours.similarities >= LEAST_SIMILARITY)
        other = neighbours.indices[row, column]
        pairs = np.stack([np.minimum(row, other), np.maximum(row, other)], 1)
        pairs = np.unique(pairs, axis=0)
        found.append(np.column_stack([pairs, np.full(len(pairs), is_mirrored)]))
    whole, part, flipped = torch.from_numpy(np.concatenate(found)).unbind(1)
    return Candidates(whole, part, flipped.bool())


def _read_thumbnails(images: Sequence[Image], chosen: Tensor, tick: Tick) -> Tensor:
    """Returns thumbnails uint8 ``(N, THUMBNAIL, THUMBNAIL)``; those of images that are not chosen are 0."""
    thumbnails = torch.zeros(len(images), THUMBNAIL, THUMBNAIL, dtype=torch.uint8)

    def read(index: int) -> None:
        sample = images[index].sample
        try:
            thumbnail = read_thumbnail(sample.path, THUMBNAIL)
        except UnreadableImage as error:
            raise DataError(f"{sample.path} cannot be read any more: {error}") from error
        thumbnails[index] = torch.from_numpy(np.array(thumbnail.convert("L")))

    with ThreadPoolExecutor(reader_threads()) as pool:
        for _ in pool.map(read, chosen.tolist()):
            tick(1)
    return thumbnails


def _search_boxes(candidates: Candidates, thumbnails: Tensor) -> tuple[Candidates, Tensor]:
    """Returns the pairs that are similar in a few pixels, the larger image as the whole, and the boxes."""
    templates = torch.cat([coarse_templates(_as_grey(part)) for part in torch.split(thumbnails, BLOCK)])
    count = len(candidates.whole)
    whole = torch.cat([candidates.whole, candidates.part])
    part = torch.cat([candidates.part, candidates.whole])
    mirrored = candidates.mirrored.repeat(2)
    search = BoxSearch()
    correlations, boxes = torch.empty(2 * count), torch.empty(2 * count, 4)
    order = whole.argsort(stable=True)
    _, sizes = np.unique(whole.numpy(), return_counts=True)
    for rows in torch.split(order, sizes.tolist()):
        others = templates[part[rows], mirrored[rows].long()]
        correlations[rows], boxes[rows] = search(_as_grey(thumbnails[whole[rows[0]]]), others)
    # of the two images of a pair, the one that holds the other has the higher correlation
    highest, direction = correlations.view(2, count).max(0)
    rows = (direction * count + torch.arange(count))[highest >= COARSE_COPY]
    return Candidates(whole[rows], part[rows], mirrored[rows]), boxes[rows]


def _correlate(candidates: Candidates, boxes: Tensor, thumbnails: Tensor, tick: Tick) -> NDArray[np.float64]:
    """Returns the correlations of the details of candidates."""
    correlations = np.zeros(len(boxes))
    for rows in torch.split(torch.arange(len(boxes)), BLOCK):
        parts = _as_grey(thumbnails[candidates.part[rows]])
        flipped = candidates.mirrored[rows, None, None]
        parts = torch.where(flipped, parts.flip(2), parts)
        wholes = _as_grey(thumbnails[candidates.whole[rows]])
        correlations[rows.numpy()] = correlate(wholes, parts, boxes[rows], ALIGNED_COPY)
        tick(len(rows))
    return correlations


def _as_grey(thumbnails: Tensor) -> Tensor:
    """Returns greys from 0 to 1."""
    return thumbnails.float() / 255
