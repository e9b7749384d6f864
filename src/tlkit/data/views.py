"""Reads images in views: decoded once, then preprocessed or augmented."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PillowImage

from tlkit.data.image_cache import ImageCache
from tlkit.data.images import DECODING, ChangedImage, Image, UnreadableImage, decoder_versions
from tlkit.errors import DataError
from tlkit.parts.augmentation import Augmentation, Transform, split_fixed_steps
from tlkit.parts.preprocess import Preprocess
from tlkit.utils.hashing import digest, seed

#: uint8 RGB, with the channels last.
Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class View:
    """One version of every image: the plain image, or one draw of an augmentation.

    Attributes:
        preprocess: resizing, cropping and normalisation.
        augmentation: the augmentation, or None for the plain image.
        draw: what the random draw depends on besides the image's bytes.
        name: identifies the augmentation with its options and its code.
        mirrored: whether left and right are exchanged.
    """

    preprocess: Preprocess
    augmentation: Augmentation | None = field(default=None, compare=False)
    draw: tuple[object, ...] = ()
    name: str = ""
    mirrored: bool = False

    @property
    def identity(self) -> str:
        """A hash of what determines the pixels; views with the same identity have the same pixels."""
        mirrored = ["mirrored"] if self.mirrored else []
        return digest(DECODING, *decoder_versions(), self.preprocess, self.name, self.draw, *mirrored)

    def drawn(self, *draw: object) -> View:
        """Returns the same augmentation with another random draw."""
        return self if self.augmentation is None else replace(self, draw=(*self.draw, *draw))


class ViewReader:
    """Reads images in views, and caches the deterministic part of those that will be read again.

    That part is the decoded image after preprocessing, or after the fixed steps of an augmentation.
    """

    def __init__(self, cache: ImageCache | None = None) -> None:
        """Uses `cache`, or a new one that is sized by the machine."""
        self._cache = cache or ImageCache()
        self._threads = threading.local()

    def get(self, image: Image, views: Sequence[View], *, remember: bool) -> list[Pixels]:
        """Returns an image's pixels in each view, uint8 RGB ``(size, size, 3)``; it is decoded at most once.

        Raises:
            DataError: the file cannot be read any more.
        """
        done: dict[object, Pixels] = {}
        decoded: list[PillowImage.Image] = []

        def deterministic(key: object, steps: Callable[[PillowImage.Image], Pixels]) -> Pixels:
            pixels = done.get(key)
            if pixels is None:
                pixels = self._cache.get((image.sha256, key))
            if pixels is None:
                if not decoded:
                    decoded.append(_read(image))
                pixels = steps(decoded[0])
                pixels.setflags(write=False)  # all views share it
                if remember:
                    self._cache.put((image.sha256, key), pixels)
            done[key] = pixels
            return pixels

        result = []
        for view in views:
            if view.augmentation is None:
                pixels = deterministic(view.preprocess, partial(_preprocess, image, view.preprocess))
                result.append(np.ascontiguousarray(pixels[:, ::-1]) if view.mirrored else pixels)
                continue
            fixed, random = self._own_transforms(view.augmentation)
            key = (view.preprocess, view.name) if fixed else None
            pixels = deterministic(key, partial(_apply, fixed))
            random.set_random_seed(seed(*view.draw, image.sha256) % 2**32)
            result.append(random(image=pixels)["image"])
        return result

    def _own_transforms(self, augmentation: Augmentation) -> tuple[Sequence[Transform], Augmentation]:
        """Returns this thread's copy, split into fixed and random steps: transforms hold random state."""
        copies: dict[int, tuple[Augmentation, tuple[Sequence[Transform], Augmentation]]]
        copies = self._threads.__dict__.setdefault("copies", {})
        entry = copies.get(id(augmentation))
        if entry is None or entry[0] is not augmentation:
            entry = copies[id(augmentation)] = (augmentation, split_fixed_steps(augmentation))
        return entry[1]


def _preprocess(image: Image, preprocess: Preprocess, decoded: PillowImage.Image) -> Pixels:
    try:
        return preprocess(decoded)
    except ValueError as error:  # such as no pixels in height, of a thin image that is made small
        raise DataError(
            f"{image.sample.path} cannot be resized to {preprocess.size} pixels: {error}"
        ) from error


def _apply(steps: Sequence[Transform], decoded: PillowImage.Image) -> Pixels:
    pixels = np.asarray(decoded)
    for step in steps:
        pixels = step(image=pixels)["image"]
    return pixels


def _read(image: Image) -> PillowImage.Image:
    try:
        return image.read()
    except ChangedImage as error:
        raise DataError(
            f"{image.sample.path} is not the file that it was when the run began: let what writes it finish, "
            "and start the command again"
        ) from error
    except UnreadableImage as error:
        raise DataError(f"{image.sample.path} was readable when the run began: {error}") from error
