"""Compares the pixels of two images, one of which may be a crop of the other.

Where one image lies in the other is found among a hundred boxes of 10 by 10 pixels, and then refined by
Gauss-Newton steps (Lucas and Kanade 1981). The correlation of what lies in the box and the other image, each
pixel relative to the mean and the contrast of its surroundings, says whether they are the same photo:
different photos of one object have the same shapes, but not the same details.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

#: Sides of thumbnails, of boxes when one is searched, when it is refined, and when details are compared.
THUMBNAIL, COARSE, FINE, DETAILED = 96, 10, 24, 48
#: A box holds from 0.7 to all of each side, in these steps.
STEPS = (0.0, 0.1, 0.2, 0.3)
INTERVALS = torch.tensor([(start, 1 - cut) for start in STEPS for cut in STEPS if start + cut < 0.35])
#: Gauss-Newton steps; the fifth hardly moves the box any more.
ITERATIONS = 6
#: Surroundings of a pixel, to each side; contrasts below the noise count as the noise.
AROUND, NOISE = 4, 0.02


def coarse_templates(thumbnails: Tensor) -> Tensor:
    """Returns each image, and its mirror image, in a few pixels: ``(N, 2, COARSE²)``, of length 1."""
    small = functional.adaptive_avg_pool2d(thumbnails, COARSE)
    return _unit(torch.stack([small, small.flip(2)], 1).flatten(2))


class BoxSearch:
    """Finds the box in which an image holds another one, in a few pixels."""

    def __init__(self) -> None:
        edges = INTERVALS[:, :1] + (INTERVALS[:, 1:] - INTERVALS[:, :1]) * torch.linspace(0, 1, COARSE + 1)
        left, right = edges[:, :-1, None] * THUMBNAIL, edges[:, 1:, None] * THUMBNAIL
        column = torch.arange(THUMBNAIL)
        overlap = (torch.minimum(right, column + 1) - torch.maximum(left, column)).clamp(min=0)
        #: Averages of columns, ``(intervals · COARSE, THUMBNAIL)``.
        self._averages = (overlap / overlap.sum(2, keepdim=True)).flatten(0, 1)

    def __call__(self, thumbnail: Tensor, templates: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the highest correlation with each of the templates ``(n, COARSE²)``, and the boxes.

        A box is top, bottom, left, right as fractions of the image's sides, ``(n, 4)``.
        """
        count = len(INTERVALS)
        crops = (self._averages @ thumbnail @ self._averages.T).view(count, COARSE, count, COARSE)
        boxes = _unit(crops.permute(0, 2, 1, 3).reshape(count * count, -1))
        correlations, best = (templates @ boxes.T).max(1)
        return correlations, torch.cat([INTERVALS[best // count], INTERVALS[best % count]], 1)


def correlate(wholes: Tensor, parts: Tensor, boxes: Tensor, least: float) -> NDArray[np.float64]:
    """Returns the correlations of the details of images and of what lies in a box of others, ``(N,)``.

    Args:
        wholes: thumbnails, ``(N, THUMBNAIL, THUMBNAIL)``, that the boxes belong to.
        parts: thumbnails of the images that may lie in them.
        boxes: where they may lie, approximately, ``(N, 4)``.
        least: plain correlation in the refined box, below which images are different: they have 0.
    """
    correlations = np.zeros(len(wholes))
    plain, refined = _refine(wholes, parts, boxes)
    similar = (plain >= least).nonzero()[:, 0]
    if len(similar):
        inside = _details(_sample(wholes[similar], refined[similar], THUMBNAIL))
        correlations[similar.numpy()] = (inside * _details(parts[similar])).sum(1).double().numpy()
    return correlations


def _refine(wholes: Tensor, parts: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Moves the sides of boxes to where the correlation is highest; returns it, and (centre, half) pairs."""
    wholes, parts = (functional.adaptive_avg_pool2d(images, DETAILED) for images in (wholes, parts))
    targets = functional.adaptive_avg_pool2d(parts, FINE).flatten(1)
    tops, bottoms, lefts, rights = boxes.unbind(1)
    sides = torch.stack([tops + bottoms - 1, bottoms - tops, lefts + rights - 1, rights - lefts], 1)
    vertical, horizontal = torch.gradient(wholes, spacing=2 / DETAILED, dim=(1, 2))
    offsets = _centres(FINE)
    down, right = offsets.repeat_interleave(FINE), offsets.repeat(FINE)
    highest, best = torch.full((len(wholes),), -1.0), sides
    for _ in range(ITERATIONS):
        inside = _sample(wholes, sides, FINE).flatten(1)
        correlations = (_unit(inside) * _unit(targets)).sum(1)
        better = correlations > highest
        highest = torch.where(better, correlations, highest)
        best = torch.where(better[:, None], sides, best)
        slope_down = _sample(vertical, sides, FINE).flatten(1)
        slope_right = _sample(horizontal, sides, FINE).flatten(1)
        # target = contrast * inside + brightness + contrast * slopes * change of the sides
        columns = [slope_down, slope_down * down, slope_right, slope_right * right, inside]
        jacobian = torch.stack([*columns, torch.ones_like(inside)], 2)
        hessian = jacobian.mT @ jacobian
        hessian += torch.diag_embed(1e-3 * hessian.diagonal(dim1=1, dim2=2) + 1e-6)
        solution = torch.linalg.solve(hessian, jacobian.mT @ targets[:, :, None])[:, :, 0]
        sides = sides + (solution[:, :4] / solution[:, 4:5].clamp(min=0.2)).clamp(-0.1, 0.1)
    return highest, best


def _sample(images: Tensor, sides: Tensor, size: int) -> Tensor:
    """Returns what lies in boxes (centre and half of the height, then of the width), in `size` pixels."""
    offsets = _centres(size)
    rows, columns = sides[:, 0:1] + sides[:, 1:2] * offsets, sides[:, 2:3] + sides[:, 3:4] * offsets
    grid = torch.stack([columns[:, None].expand(-1, size, -1), rows[:, :, None].expand(-1, -1, size)], 3)
    return functional.grid_sample(images[:, None], grid, padding_mode="border", align_corners=False)[:, 0]


def _centres(size: int) -> Tensor:
    """Returns the centres of pixels from -1 to 1."""
    return (torch.arange(size) + 0.5) / size * 2 - 1


def _details(images: Tensor) -> Tensor:
    """Returns each pixel's deviation from its surroundings in units of their contrast, of length 1."""
    small = functional.adaptive_avg_pool2d(images[:, None], DETAILED)
    deviations = small - _surroundings(small)
    contrast = _surroundings(deviations**2).sqrt()
    return _unit((deviations / (contrast + NOISE)).flatten(1))


def _surroundings(images: Tensor) -> Tensor:
    padded = functional.pad(images, (AROUND,) * 4, mode="replicate")
    return functional.avg_pool2d(padded, 2 * AROUND + 1, 1)


def _unit(rows: Tensor) -> Tensor:
    """Returns rows minus their mean, scaled to length 1: their products are correlations."""
    return functional.normalize(rows - rows.mean(-1, keepdim=True), dim=-1, eps=1e-6)
