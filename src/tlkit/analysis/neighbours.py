"""Finds each image's most similar others block by block: memory does not grow with the images' square."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

#: Similarities that are held at a time.
MAX_SIMILARITIES = 2**24
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
    mean = features.mean(0)
    rows = _unit(features - mean)
    query_rows = rows if queries is None else _unit(queries - mean)
    count = len(rows)
    k = min(k, count - 1)
    search, query_search, candidates = rows, query_rows, k
    if count > MAX_EXACT:
        components = _principal_components(rows)
        search, query_search = rows @ components, query_rows @ components
        candidates = min(k + SPARE, count - 1)
    size = max(1, min(count, MAX_SIMILARITIES // count))
    # one buffer for all blocks: the system would clear the memory of each anew
    buffer, blocks = rows.new_empty(size, count), []
    for start in range(0, count, size):
        block = slice(start, start + size)
        similarities = torch.mm(query_search[block], search.T, out=buffer[: count - start])
        similarities.diagonal(start).fill_(-torch.inf)
        highest, indices = similarities.topk(candidates, dim=1)
        if count > MAX_EXACT:
            highest, indices = _rerank(query_rows[block], rows, indices, k)
        blocks.append((indices, highest))
    indices, highest = (torch.cat(parts) for parts in zip(*blocks, strict=True))
    return Neighbours(indices.numpy(), highest.numpy())


def _unit(features: NDArray[np.float32]) -> Tensor:
    """Returns features scaled to length 1."""
    return torch.nn.functional.normalize(torch.from_numpy(np.ascontiguousarray(features, np.float32)), dim=1)


def _principal_components(rows: Tensor) -> Tensor:
    """Returns the directions of the largest variance, ``(C, COMPONENTS)``."""
    vectors: Tensor = torch.linalg.eigh(rows.T @ rows).eigenvectors
    return vectors[:, -COMPONENTS:]


def _rerank(queries: Tensor, rows: Tensor, candidates: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Returns the exact similarities of the best `k` candidates, and which they are."""
    parts = []
    for start in range(0, len(queries), RERANKED):
        chosen = rows[candidates[start : start + RERANKED]]
        parts.append(torch.einsum("qc,qkc->qk", queries[start : start + RERANKED], chosen))
    exact = torch.cat(parts)
    best, order = exact.topk(k, dim=1)
    return best, candidates.gather(1, order)
