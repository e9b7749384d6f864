"""Finds each image's most similar others block by block: memory does not grow with the images' square."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

#: Similarities that are held at a time.
MAX_SIMILARITIES = 2**24
#: Images that are centred at a time.
BLOCK = 4096
#: Images whose candidates are compared exactly at a time: few, so that they fit into the processor's cache.
RERANKED = 16
#: Of more images than this, candidates are found among their principal components: that is faster by the
#: ratio of both widths.
MAX_EXACT = 10_000
COMPONENTS = 256
#: Candidates beyond the k that are asked for: 0.9996 of the 20 neighbours of 18,000 photos were then true.
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
        queries: features of other views of the same images, such as mirrored, whose neighbours among
            `features` are wanted; the features themselves unless given.
    """
    everything = _Centred.of(features, features.mean(0))
    asked = everything if queries is None else _Centred.of(queries, everything.mean)
    count = len(features)
    k = min(k, count - 1)
    is_exact = count <= MAX_EXACT
    candidates = k if is_exact else min(k + SPARE, count - 1)
    components = None if is_exact else _principal_components(everything)
    search = everything.project(components)
    query_search = search if queries is None else asked.project(components)
    size = max(1, min(count, MAX_SIMILARITIES // count))
    # one buffer for all blocks: the system would clear the memory of each anew
    buffer, blocks = search.new_empty(size, count), []
    for start in range(0, count, size):
        block = slice(start, start + size)
        similarities = torch.mm(query_search[block], search.T, out=buffer[: count - start])
        similarities.diagonal(start).fill_(-torch.inf)
        highest, indices = similarities.topk(candidates, dim=1)
        if not is_exact:
            highest, indices = _rerank(asked.rows(block), everything, indices, k)
        blocks.append((indices, highest))
    indices, highest = (torch.cat(parts) for parts in zip(*blocks, strict=True))
    return Neighbours(indices.numpy(), highest.numpy())


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
    def of(features: NDArray[np.float32], mean: NDArray[np.float32] | Tensor) -> _Centred:
        rows, centre = torch.from_numpy(np.ascontiguousarray(features, np.float32)), torch.as_tensor(mean)
        lengths = torch.cat([(part - centre).norm(dim=1) for part in torch.split(rows, BLOCK)])
        return _Centred(rows, centre, lengths.clamp(min=1e-12))

    def rows(self, block: slice) -> Tensor:
        return (self.features[block] - self.mean) / self.lengths[block, None]

    def blocks(self) -> Iterator[Tensor]:
        for start in range(0, len(self.features), BLOCK):
            yield self.rows(slice(start, start + BLOCK))

    def project(self, components: Tensor | None) -> Tensor:
        """Returns the rows, or their coordinates along components ``(C, D)``."""
        return torch.cat([rows if components is None else rows @ components for rows in self.blocks()])


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
    parts = []
    for start in range(0, len(queries), RERANKED):
        asked, chosen = queries[start : start + RERANKED], candidates[start : start + RERANKED]
        products = torch.einsum("qc,qkc->qk", asked, centred.features[chosen])
        parts.append((products - (asked @ centred.mean)[:, None]) / centred.lengths[chosen])
    exact = torch.cat(parts)
    best, order = exact.topk(k, dim=1)
    return best, candidates.gather(1, order)
