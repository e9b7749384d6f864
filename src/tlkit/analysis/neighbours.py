"""Finds each image's most similar others: among few images all, among many in an inverted-file index.

The index divides the images into about as many cells as each holds, by k-means, and compares an image with
those of the cells whose centres are nearest (Jégou, Douze and Schmid, "Product quantization for nearest
neighbor search", 2011). Time grows with the images' number to the power of 1.5, memory with their number.
faiss has one, too: beside torch, its second OpenMP runtime aborts the process on macOS.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import isqrt

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

#: Similarities that are held at a time; in the index, where there are many images.
MAX_SIMILARITIES, MAX_IN_INDEX = 2**24, 2**22
#: Images that are centred at a time.
BLOCK = 1024
#: Images whose candidates are compared exactly at a time: few, so that they fit into the processor's cache.
RERANKED = 16
#: Of more images than this, candidates are found in an index of their principal components.
MAX_EXACT = 10_000
COMPONENTS = 256
#: Each image's nearest cells, and the most that are searched for the neighbours of all images of one cell.
PROBES, MAX_CELLS = 8, 48
#: Images per cell from which cells are formed, and passes over them.
PER_CELL, PASSES = 100, 3
#: Candidates beyond the k that are asked for, which are compared by all features.
SPARE = 32


@dataclass(frozen=True)
class Neighbours:
    """The most similar other images of each image, most similar first.

    Attributes:
        indices: int64 ``(N, k)``.
        similarities: cosines of the centred features, float32 ``(N, k)``.
    """

    indices: NDArray[np.int64]
    similarities: NDArray[np.float32]


def nearest(
    features: NDArray[np.float32], k: int, *, queries: NDArray[np.float32] | None = None
) -> Neighbours:
    """Finds the `k` nearest neighbours of each image, by the cosine of features minus their mean.

    An image is never its own neighbour.

    Args:
        features: pooled features, float32 ``(N, C)``.
        k: number of neighbours; there are fewer if there are fewer other images.
        queries: features of other views of the same images, such as mirrored, to search
            `features` with; the features themselves unless given.
    """
    mean = _mean(features)
    images = _Centred.of(features, mean)
    searched_with = images if queries is None else _Centred.of(queries, mean)
    k = min(k, len(features) - 1)
    search = _search_all if len(features) <= MAX_EXACT else _search_index
    indices, similarities = search(images, searched_with, k)
    return Neighbours(indices.numpy(), similarities.numpy())


def _mean(features: NDArray[np.float32]) -> NDArray[np.float32]:
    """Returns the mean of the rows, of which no more than a block is added up in float32."""
    total = np.zeros(features.shape[1])
    for start in range(0, len(features), BLOCK):
        total += features[start : start + BLOCK].sum(0)
    return (total / len(features)).astype(np.float32)


@dataclass(frozen=True)
class _Centred:
    """Features minus a mean, scaled to length 1, which are computed when they are needed.

    Attributes:
        features: as they are: a second array of many images would not fit into memory.
        mean: the mean.
        lengths: of the features minus the mean, ``(N,)``.
    """

    features: Tensor
    mean: Tensor
    lengths: Tensor

    @staticmethod
    def of(features: NDArray[np.float32], mean: NDArray[np.float32]) -> _Centred:
        everything = torch.from_numpy(np.ascontiguousarray(features, np.float32))
        centre = torch.from_numpy(mean)
        lengths = torch.cat([(part - centre).norm(dim=1) for part in torch.split(everything, BLOCK)])
        return _Centred(everything, centre, lengths.clamp(min=1e-12))

    def rows(self, block: slice) -> Tensor:
        return (self.features[block] - self.mean) / self.lengths[block, None]

    def blocks(self) -> Iterator[Tensor]:
        for start in range(0, len(self.features), BLOCK):
            yield self.rows(slice(start, start + BLOCK))

    def project(self, components: Tensor | None = None) -> Tensor:
        """Returns the rows, or their coordinates along components ``(C, D)``."""
        return torch.cat([rows if components is None else rows @ components for rows in self.blocks()])


def _search_all(images: _Centred, searched_with: _Centred, k: int) -> tuple[Tensor, Tensor]:
    """Returns the indices and similarities of the nearest neighbours, by comparing all pairs."""
    search = images.project()
    queries = search if searched_with is images else searched_with.project()
    count = len(search)
    size = max(1, min(count, MAX_SIMILARITIES // count))
    # one buffer for all blocks: the system would clear the memory of each anew
    buffer, blocks = search.new_empty(size, count), []
    for start in range(0, count, size):
        block = queries[start : start + size]
        similarities = torch.mm(block, search.T, out=buffer[: len(block)])
        similarities.diagonal(start).fill_(-torch.inf)
        blocks.append(similarities.topk(k, dim=1))
    highest, indices = (torch.cat(parts) for parts in zip(*blocks, strict=True))
    return indices, highest


def _search_index(images: _Centred, searched_with: _Centred, k: int) -> tuple[Tensor, Tensor]:
    """Returns the indices and similarities of the nearest neighbours in the nearest cells."""
    components = _principal_components(images)
    search = images.project(components)
    queries = search if searched_with is images else searched_with.project(components)
    candidates = _find_candidates(search, queries, min(k + SPARE, len(search) - 1))
    blocks = [slice(start, start + RERANKED) for start in range(0, len(search), RERANKED)]
    parts = [_rerank(searched_with.rows(block), images, candidates[block], k) for block in blocks]
    highest, indices = (torch.cat(tensors) for tensors in zip(*parts, strict=True))
    return indices, highest


def _find_candidates(search: Tensor, queries: Tensor, count: int) -> Tensor:
    """Returns the indices of `count` images near each of the queries, ``(N, count)``, itself excluded."""
    centres = _find_centres(search, count)
    cells = _nearest_centres(search, centres, 1)[:, 0]
    probes = _nearest_centres(queries, centres, min(PROBES, len(centres)))
    indices = torch.empty(len(queries), count, dtype=torch.int64)
    # queries in one cell are near the same cells: they share one product
    for cell in range(len(centres)):
        asking = (probes[:, 0] == cell).nonzero()[:, 0]
        votes = torch.bincount(probes[asking].flatten(), minlength=len(centres))
        votes[votes.argsort(descending=True, stable=True)[MAX_CELLS:]] = 0
        members = (votes[cells] > 0).nonzero()[:, 0]
        for rows in torch.split(asking, max(1, MAX_IN_INDEX // max(1, len(members)))):
            similarities = queries[rows] @ search[members].T
            own = torch.searchsorted(members, rows).clamp(max=len(members) - 1)
            is_member = members[own] == rows
            similarities[is_member.nonzero()[:, 0], own[is_member]] = -torch.inf
            indices[rows] = members[similarities.topk(count).indices]
    return indices


def _find_centres(search: Tensor, least: int) -> Tensor:
    """Returns the centres of cells, each of which holds more than `least` images, ``(cells, D)``."""
    from sklearn.cluster import MiniBatchKMeans

    count = min(isqrt(len(search)), len(search) // (least + 1))
    sample = np.random.default_rng(0).permutation(len(search))[: PER_CELL * count]
    # it never stops early: where it did would depend on the order in which threads add up
    means = MiniBatchKMeans(count, max_iter=PASSES, n_init=1, random_state=0, tol=0, max_no_improvement=None)
    centres = torch.from_numpy(means.fit(search[sample].numpy()).cluster_centers_)
    sizes = _nearest_centres(search, centres, 1)[:, 0].bincount(minlength=count)
    return centres[sizes > least]


def _nearest_centres(rows: Tensor, centres: Tensor, count: int) -> Tensor:
    """Returns the indices of the nearest centres of each row, ``(N, count)``."""
    halves = (centres**2).sum(1) / 2
    return torch.cat([(part @ centres.T - halves).topk(count).indices for part in torch.split(rows, BLOCK)])


def _principal_components(centred: _Centred) -> Tensor:
    """Returns the directions of the largest variance, ``(C, COMPONENTS)``."""
    width = centred.features.shape[1]
    products = centred.features.new_zeros(width, width)
    for rows in centred.blocks():
        products += rows.T @ rows
    vectors: Tensor = torch.linalg.eigh(products).eigenvectors
    return vectors[:, -COMPONENTS:]


def _rerank(queries: Tensor, centred: _Centred, candidates: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Returns the exact similarities of the best `k` candidates, and which they are."""
    products = torch.einsum("qc,qkc->qk", queries, centred.features[candidates])
    exact = (products - (queries @ centred.mean)[:, None]) / centred.lengths[candidates]
    best, order = exact.topk(k, dim=1)
    return best, candidates.gather(1, order)
