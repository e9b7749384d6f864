"""From images to the batches a network is given: read, augment, stack, normalise, ahead of time."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache
from itertools import groupby, islice

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tlkit.components import Preprocess
from tlkit.data.images import Image
from tlkit.data.pixels import Pixels, View
from tlkit.devices import moved

#: Batches that are being read while one is used.
AHEAD = 3
CPU = torch.device("cpu")


def threads() -> int:
    """How many threads read images: one per processor that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def batches(
    pixels: Pixels,
    images: Sequence[Image],
    views: Sequence[View],
    parts: Sequence[NDArray[np.int64]],
    *,
    device: torch.device = CPU,
    fill: int = 0,
    remember: bool = False,
) -> Iterator[tuple[NDArray[np.int64], Tensor]]:
    """Batches of images, read by threads while earlier ones are used.

    An image that follows itself in a batch, in another view, is decoded once for both.

    Args:
        pixels: where they are read.
        images: all of them.
        views: how each is seen; in one batch all have the same preprocessing.
        parts: for each batch, places in `images`.
        device: where the batches are wanted.
        fill: repeat a batch's last image until it has as many images as this.
        remember: keep what each image begins with, since it will be wanted again.

    Yields:
        The places of a batch's images, and normalised float32 images ``(B, 3, size, size)`` in
        channels-last layout; with `fill` there may be more images than places.
    """
    waiting: deque[tuple[NDArray[np.int64], list[Future[list[NDArray[np.uint8]]]]]] = deque()

    def look(places: list[int]) -> list[NDArray[np.uint8]]:
        return pixels.get(images[places[0]], [views[place] for place in places], remember=remember)

    pool = ThreadPoolExecutor(threads())
    try:
        coming = iter(parts)
        while True:
            for part in islice(coming, AHEAD + 1 - len(waiting)):
                alike = groupby(part.tolist(), key=lambda place: images[place].sha256)
                waiting.append((part, [pool.submit(look, list(places)) for _, places in alike]))
            if not waiting:
                break
            places, futures = waiting.popleft()
            stack = [seen for future in futures for seen in future.result()]
            stack += stack[-1:] * (fill - len(stack))
            yield places, normalise(np.stack(stack), views[int(places[0])].preprocess, device)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def normalise(pixels: NDArray[np.uint8], preprocess: Preprocess, device: torch.device = CPU) -> Tensor:
    """uint8 RGB ``(B, H, W, 3)`` to normalised float32 ``(B, 3, H, W)``, channels last, on `device`."""
    # moved as bytes: a quarter of what they become
    images = moved(torch.from_numpy(pixels), device).permute(0, 3, 1, 2).to(torch.float32)
    mean, std = _scale(preprocess, device)
    return images.div_(255).sub_(mean).div_(std)


@lru_cache
def _scale(preprocess: Preprocess, device: torch.device) -> tuple[Tensor, Tensor]:
    mean, std = (torch.tensor(values, device=device) for values in (preprocess.mean, preprocess.std))
    return mean.view(3, 1, 1), std.view(3, 1, 1)
