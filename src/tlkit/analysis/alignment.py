"""Compares the pixels of two images, one of which may be a crop of the other.

Where one image lies in the other is found among a hundred boxes of 10 by 10 pixels, and then refined by
Gauss-Newton steps (Lucas and Kanade 1981). The correlation of what lies in the box and the other image, each
pixel relative to the mean and the contrast of its surroundings, says whether they are the same photo:
different photos of one object have the same shapes, but not the same details.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

#: Sides of thumbnails, and of boxes when one is searched.
THUMBNAIL, COARSE = 96, 10
#: A box holds from 0.7 to all of each side, in these steps.
STEPS = (0.0, 0.1, 0.2, 0.3)
INTERVALS = torch.tensor([(start, 1 - cut) for start in STEPS for cut in STEPS if start + cut < 0.35])
#: Gauss-Newton steps; the last ones hardly move the box any more.
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
        first, last = INTERVALS.unbind(1)
        self._sides = torch.stack([first + last - 1, last - first], 1)

    def __call__(self, thumbnail: Tensor, templates: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the highest correlation with each of the templates ``(n, COARSE²)``, and the box of each.

        A box is the centre and half of its height, then of its width, from -1 to 1.
        """
        count = len(INTERVALS)
        crops = (self._averages @ thumbnail @ self._averages.T).view(count, COARSE, count, COARSE)
        boxes = _unit(crops.permute(0, 2, 1, 3).reshape(count * count, -1))
        correlations, best = (templates @ boxes.T).max(1)
        return correlations, torch.cat([self._sides[best // count], self._sides[best % count]], 1)


def align(wholes: Tensor, parts: Tensor, sides: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Moves boxes to where the correlation of what lies in them with other images is highest.

    Args:
        wholes: thumbnails ``(N, S, S)`` that the boxes belong to.
        parts: thumbnails of the images that may lie in them.
        sides: the boxes, ``(N, 4)``: centre and half of the height, then of the width, from -1 to 1.
        size: how many pixels of each side are compared.

    Returns:
        The correlations, ``(N,)``, and the boxes.
    """
    wholes = functional.adaptive_avg_pool2d(wholes, 2 * size)
    targets = functional.adaptive_avg_pool2d(parts, size).flatten(1)
    vertical, horizontal = torch.gradient(wholes, spacing=1 / size, dim=(1, 2))
    offsets = _centres(size)
    down, right = offsets.repeat_interleave(size), offsets.repeat(size)
    highest, best = torch.full((len(wholes),), -1.0), sides
    for _ in range(ITERATIONS):
        inside = _sample(wholes, sides, size).flatten(1)
        correlations = (_unit(inside) * _unit(targets)).sum(1)
        better = correlations > highest
        highest = torch.where(better, correlations, highest)
        best = torch.where(better[:, None], sides, best)
        slope_down = _sample(vertical, sides, size).flatten(1)
        slope_right = _sample(horizontal, sides, size).flatten(1)
        # target = contrast * inside + brightness + contrast * slopes * change of the sides
        columns = [slope_down, slope_down * down, slope_right, slope_right * right, inside]
        jacobian = torch.stack([*columns, torch.ones_like(inside)], 2)
        hessian = jacobian.mT @ jacobian
        hessian += torch.diag_embed(1e-3 * hessian.diagonal(dim1=1, dim2=2) + 1e-6)
        solution = torch.linalg.solve(hessian, jacobian.mT @ targets[:, :, None])[:, :, 0]
        sides = sides + (solution[:, :4] / solution[:, 4:5].clamp(min=0.2)).clamp(-0.1, 0.1)
    return highest, best


def correlate_details(wholes: Tensor, parts: Tensor, sides: Tensor, size: int) -> Tensor:
    """Returns the correlations of the details of images and of what lies in boxes of others; see `align`."""
    inside = _sample(wholes, sides, wholes.shape[1])
    return (_details(inside, size) * _details(parts, size)).sum(1)


def invert(sides: Tensor) -> Tensor:
    """Turns boxes around: from where the part lies in the whole to where the whole lies in the part."""
    centres, halves = sides[:, 0::2], sides[:, 1::2]
    return torch.stack([-centres / halves, 1 / halves], 2).flatten(1)


def protrusion(sides: Tensor) -> Tensor:
    """Returns how far boxes reach beyond the images that they belong to, in halves of their sides."""
    return torch.maximum(sides[:, 0].abs() + sides[:, 1], sides[:, 2].abs() + sides[:, 3]) - 1


def _sample(images: Tensor, sides: Tensor, size: int) -> Tensor:
    """Returns what lies in boxes (centre and half of the height, then of the width), in `size` pixels."""
    offsets = _centres(size)
    rows, columns = sides[:, 0:1] + sides[:, 1:2] * offsets, sides[:, 2:3] + sides[:, 3:4] * offsets
    grid = torch.stack([columns[:, None].expand(-1, size, -1), rows[:, :, None].expand(-1, -1, size)], 3)
    return functional.grid_sample(images[:, None], grid, padding_mode="border", align_corners=False)[:, 0]


def _centres(size: int) -> Tensor:
    """Returns the centres of pixels from -1 to 1."""
    return (torch.arange(size) + 0.5) / size * 2 - 1


def _details(images: Tensor, size: int) -> Tensor:
    """Returns each pixel's deviation from its surroundings in units of their contrast, of length 1."""
    small = functional.adaptive_avg_pool2d(images[:, None], size)
    deviations = small - _surroundings(small)
    contrast = _surroundings(deviations**2).sqrt()
    return _unit((deviations / (contrast + NOISE)).flatten(1))


def _surroundings(images: Tensor) -> Tensor:
    padded = functional.pad(images, (AROUND,) * 4, mode="replicate")
    return functional.avg_pool2d(padded, 2 * AROUND + 1, 1)


def _unit(rows: Tensor) -> Tensor:
    """Returns rows minus their mean, scaled to length 1: their products are correlations."""
    return functional.normalize(rows - rows.mean(-1, keepdim=True), dim=-1, eps=1e-6)
