"""Loads batches of images: read, augmented, stacked and normalised in threads, ahead of their use."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache, partial
from itertools import groupby

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tlkit.data.images import Image
from tlkit.data.prefetch import prefetch
from tlkit.data.views import Pixels, View, ViewReader
from tlkit.parts.preprocess import Preprocess
from tlkit.runtime.devices import CPU, to_device


def load_batches(
    reader: ViewReader,
    images: Sequence[Image],
    views: Sequence[View],
    batches: Sequence[NDArray[np.int64]],
    *,
    device: torch.device = CPU,
    pad_to: int = 0,
    remember: bool = False,
) -> Iterator[tuple[NDArray[np.int64], Tensor]]:
    """Loads batches of images in the given views.

    An image that follows itself in a batch, in another view, is decoded once for both.

    Args:
        reader: reads the images.
        images: all images.
        views: the view of each image; the views of one batch share their preprocessing.
        batches: for each batch, indices into `images`.
        device: the device to load the batches to.
        pad_to: repeat a batch's last image until it has this many.
        remember: cache the deterministic part of each image's views, for the next epoch.

    Yields:
        A batch's indices, and normalised float32 images ``(B, 3, size, size)`` in channels-last layout; with
        `pad_to`, B may be larger than the number of indices.
    """

    def tasks(indices: NDArray[np.int64]) -> list[Callable[[], list[Pixels]]]:
        same_image = groupby(indices.tolist(), key=lambda index: images[index].sha256)
        return [partial(read, list(group)) for _, group in same_image]

    def read(group: list[int]) -> list[Pixels]:
        return reader.get(images[group[0]], [views[index] for index in group], remember=remember)

    for indices, futures in prefetch((indices, tasks(indices)) for indices in batches):
        pixels = [view for future in futures for view in future.result()]
        pixels += pixels[-1:] * (pad_to - len(pixels))
        yield indices, normalize(np.stack(pixels), views[int(indices[0])].preprocess, device)


def normalize(pixels: Pixels, preprocess: Preprocess, device: torch.device = CPU) -> Tensor:
    """Normalises uint8 RGB ``(B, H, W, 3)`` to float32 ``(B, 3, H, W)``, channels last, on `device`."""
    # copied as bytes: a quarter of the float32 size
    images = to_device(torch.from_numpy(pixels), device).permute(0, 3, 1, 2).to(torch.float32)
    mean, std = _mean_and_std(preprocess, device)
    return images.div_(255).sub_(mean).div_(std)


@lru_cache
def _mean_and_std(preprocess: Preprocess, device: torch.device) -> tuple[Tensor, Tensor]:
    mean, std = (torch.tensor(values, device=device) for values in (preprocess.mean, preprocess.std))
    return mean.view(3, 1, 1), std.view(3, 1, 1)
