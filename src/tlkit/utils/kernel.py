"""The radial kernel on square roots of features, as coordinates that a linear model is fitted to.

Of many images, it is approximated from a random sample (Nyström's method; Williams and Seeger, 2001).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

#: Images that the kernel compares with: all, or of more a random sample.
MAX_SUPPORT = 1000
#: Images that are compared with them at a time.
BLOCK = 1024


@dataclass(frozen=True)
class Kernel:
    """A kernel ``exp(-precision * squared distance)`` between transformed features.

    Attributes:
        support: transformed features that it compares with, ``(S, C)``.
        precision: the inverse of their median squared distance.
        basis: from the kernel's values to coordinates in the space that it spans, ``(S, R)``.
    """

    support: Tensor
    precision: Tensor
    basis: Tensor

    @staticmethod
    def of(pooled: Tensor) -> Kernel:
        """Returns the kernel of features ``(N, C)``."""
        generator = torch.Generator().manual_seed(0)
        chosen = torch.randperm(len(pooled), generator=generator)[:MAX_SUPPORT].sort().values
        support = hellinger(pooled[chosen.to(pooled.device)])
        distances = _squared_distances(support, support)
        upper = torch.triu_indices(len(support), len(support), 1)
        apart = distances[upper[0], upper[1]]
        precision = 1 / (apart.median() if len(apart) else apart.new_ones(())).clamp(min=1e-6)
        lengths, vectors = torch.linalg.eigh((-precision * distances).exp().double())
        matters = lengths > 1e-6 * lengths[-1]
        return Kernel(support, precision, (vectors[:, matters] / lengths[matters].sqrt()).float())

    def coordinates(self, pooled: Tensor) -> Tensor:
        """Returns coordinates ``(N, R)`` of features, whose products approximate the kernel's values."""
        coordinates = pooled.new_empty(len(pooled), self.basis.shape[1])
        for start in range(0, len(pooled), BLOCK):
            block = slice(start, start + BLOCK)
            values = kernel_values(hellinger(pooled[block]), self.support, self.precision)
            coordinates[block] = values @ self.basis
        return coordinates


def hellinger(pooled: Tensor) -> Tensor:
    """Returns the signed square roots of features, scaled to length 1, ``(N, C)``: Hellinger's kernel."""
    # many features are 0 behind a ReLU, where a root's gradient is infinite; Grad-CAM needs a finite one
    roots = pooled.abs().clamp(min=torch.finfo(pooled.dtype).tiny).sqrt()
    return nn.functional.normalize(pooled.sign() * roots, dim=1)


def kernel_values(transformed: Tensor, support: Tensor, precision: Tensor) -> Tensor:
    """Returns the kernel's values ``(N, S)`` between transformed features and those of the support."""
    return (-precision * _squared_distances(transformed, support)).exp()


def _squared_distances(features: Tensor, others: Tensor) -> Tensor:
    """Returns the squared distances of features of length 1, ``(N, M)``."""
    return 2 - 2 * features @ others.T
