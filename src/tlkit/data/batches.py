"""From images to the batches a network is given: read, augment, stack, normalise, ahead of time."""

from __future__ import annotations

import copy
import os
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

import numpy as np
import psutil
import torch
from numpy.typing import NDArray
from PIL import Image as PillowImage
from torch import Tensor

from tlkit.components import Preprocess
from tlkit.data.images import DECODING, Image, UnreadableImage, read
from tlkit.errors import DataError
from tlkit.hashing import digest, seed

#: Batches that are being read while one is used.
AHEAD = 3


@dataclass(frozen=True)
class View:
    """One way to see every image: the plain image, or one draw of an augmentation.

    Attributes:
        preprocess: resizing, cropping and normalisation.
        augmentation: an albumentations transform, or None for the plain image.
        draw: what the random draw depends on besides the image's bytes.
        name: the augmentation with its options.
    """

    preprocess: Preprocess
    augmentation: Any = field(default=None, compare=False)
    draw: tuple[object, ...] = ()
    name: str = ""

    @property
    def identity(self) -> str:
        """Of what a network is shown; two views with the same identity show the same pixels."""
        return digest(DECODING, self.preprocess, self.name, self.draw)

    def drawn(self, *draw: object) -> View:
        """The same augmentation, drawn anew."""
        return self if self.augmentation is None else replace(self, draw=(*self.draw, *draw))


class Pixels:
    """Reads images, and remembers decoded ones that are wanted again while memory allows."""

    def __init__(self, memory: int | None = None) -> None:
        """`memory` is how many bytes may be remembered; a quarter of what is free unless given."""
        self._left = psutil.virtual_memory().available // 4 if memory is None else memory
        self._decoded: dict[str, NDArray[np.uint8]] = {}
        self._plain: dict[tuple[str, Preprocess], NDArray[np.uint8]] = {}
        self._threads = threading.local()
        self._lock = threading.Lock()

    def get(self, image: Image, view: View, *, remember: bool) -> NDArray[np.uint8]:
        """An image's pixels in a view: uint8 RGB ``(size, size, 3)``.

        Raises:
            DataError: the file cannot be read any more.
        """
        if view.augmentation is None:
            place = (image.sha256, view.preprocess)
            found = self._plain.get(place)
            if found is None:
                found = view.preprocess(self._read(image))
                if remember and self._reserve(found.nbytes):
                    self._plain[place] = found
            return found
        decoded = self._decoded.get(image.sha256)
        if decoded is None:
            decoded = np.asarray(self._read(image))
            if remember and self._reserve(decoded.nbytes):
                self._decoded[image.sha256] = decoded
        transform = self._transform(view)
        transform.set_random_seed(seed(*view.draw, image.sha256) % 2**32)
        pixels: NDArray[np.uint8] = transform(image=decoded)["image"]
        return pixels

    def _read(self, image: Image) -> PillowImage.Image:
        try:
            return read(image.sample.path)
        except UnreadableImage as error:
            raise DataError(f"{image.sample.path} was readable when the run began: {error}") from error

    def _reserve(self, size: int) -> bool:
        with self._lock:
            if self._left < size:
                return False
            self._left -= size
            return True

    def _transform(self, view: View) -> Any:
        """This thread's own copy: a transform holds the state of its random draws."""
        own: dict[int, tuple[Any, Any]] = self._threads.__dict__.setdefault("transforms", {})
        found = own.get(id(view.augmentation))
        if found is None or found[0] is not view.augmentation:
            found = own[id(view.augmentation)] = (view.augmentation, copy.deepcopy(view.augmentation))
        return found[1]


def threads() -> int:
    """How many threads read images: one per processor that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def batches(
    pixels: Pixels,
    images: Sequence[Image],
    views: Sequence[View],
    parts: Sequence[NDArray[np.int64]],
    *,
    fill: int = 0,
    remember: bool = False,
) -> Iterator[tuple[NDArray[np.int64], Tensor]]:
    """Batches of images, read by threads while earlier ones are used.

    Args:
        pixels: where they are read.
        images: all of them.
        views: how each is seen.
        parts: for each batch, places in `images`.
        fill: repeat a batch's last image until it has as many images as this.
        remember: keep decoded images in memory, since they will be wanted again.

    Yields:
        The places of a batch's images, and normalised float32 images ``(B, 3, size, size)`` in
        channels-last layout; with `fill` there may be more images than places.
    """
    waiting: deque[tuple[NDArray[np.int64], list[Future[NDArray[np.uint8]]]]] = deque()

    def look(place: int) -> NDArray[np.uint8]:
        return pixels.get(images[place], views[place], remember=remember)

    pool = ThreadPoolExecutor(threads())
    try:
        coming = iter(parts)
        while True:
            for part in islice(coming, AHEAD + 1 - len(waiting)):
                waiting.append((part, [pool.submit(look, int(place)) for place in part]))
            if not waiting:
                break
            places, futures = waiting.popleft()
            stack = [future.result() for future in futures]
            stack += stack[-1:] * (fill - len(stack))
            yield places, normalise(np.stack(stack), views[int(places[0])].preprocess)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def normalise(pixels: NDArray[np.uint8], preprocess: Preprocess) -> Tensor:
    """uint8 RGB ``(B, H, W, 3)`` to normalised float32 ``(B, 3, H, W)`` in channels-last layout."""
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2).to(torch.float32)
    mean = torch.tensor(preprocess.mean).view(3, 1, 1)
    std = torch.tensor(preprocess.std).view(3, 1, 1)
    return images.div_(255).sub_(mean).div_(std)
