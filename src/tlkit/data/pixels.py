"""From an image file to the pixels of a view: decoded, resized, varied, and remembered if wanted again."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import takewhile
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PillowImage

from tlkit.components import Preprocess
from tlkit.data.images import DECODING, Image, UnreadableImage, read
from tlkit.data.shelf import Shelf
from tlkit.errors import DataError
from tlkit.hashing import digest, seed

Array = NDArray[np.uint8]


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
    """Reads images, and remembers how those begin that are wanted again.

    An image's beginning is all that is the same whenever it is seen: decoded, and sent through
    preprocessing, or through the fixed steps that its augmentation starts with.
    """

    def __init__(self, shelf: Shelf | None = None) -> None:
        """`shelf` is where beginnings are remembered; one of the machine's size unless given."""
        self._shelf = shelf or Shelf()
        self._threads = threading.local()

    def get(self, image: Image, views: Sequence[View], *, remember: bool) -> list[Array]:
        """An image's pixels in each of these views, uint8 RGB ``(size, size, 3)``; it is decoded once.

        Raises:
            DataError: the file cannot be read any more.
        """
        known: dict[object, Array] = {}
        decoded: list[PillowImage.Image] = []

        def begin(key: object, steps: Callable[[PillowImage.Image], Array]) -> Array:
            found = known.get(key)
            if found is None:
                found = self._shelf.get((image.sha256, key))
            if found is None:
                if not decoded:
                    decoded.append(_read(image))
                found = steps(decoded[0])
                found.setflags(write=False)  # all views share it
                if remember:
                    self._shelf.put((image.sha256, key), found)
            known[key] = found
            return found

        result = []
        for view in views:
            if view.augmentation is None:
                result.append(begin(view.preprocess, view.preprocess))
                continue
            fixed, varied = self._transforms(view)
            key = (view.preprocess, view.name) if fixed else None
            beginning = begin(key, partial(_through, fixed))
            varied.set_random_seed(seed(*view.draw, image.sha256) % 2**32)
            result.append(varied(image=beginning)["image"])
        return result

    def _transforms(self, view: View) -> tuple[list[Any], Any]:
        """This thread's own copy, in its two parts: a transform holds the state of its random draws."""
        own: dict[int, tuple[Any, tuple[list[Any], Any]]] = self._threads.__dict__.setdefault("own", {})
        found = own.get(id(view.augmentation))
        if found is None or found[0] is not view.augmentation:
            found = own[id(view.augmentation)] = (view.augmentation, divide(view.augmentation))
        return found[1]


def divide(augmentation: Any) -> tuple[list[Any], Any]:
    """Copies of the steps that an augmentation starts with and that draw nothing, and of the rest.

    A step says of itself that it draws nothing, with an attribute ``fixed = True``.
    """
    import albumentations

    own = copy.deepcopy(augmentation)
    if type(own) is not albumentations.Compose:
        return [], own
    fixed = list(takewhile(lambda step: getattr(step, "fixed", False), own.transforms))
    own.transforms = own.transforms[len(fixed) :]
    return fixed, own


def _through(steps: Sequence[Any], decoded: PillowImage.Image) -> Array:
    pixels = np.asarray(decoded)
    for step in steps:
        pixels = step(image=pixels)["image"]
    return pixels


def _read(image: Image) -> PillowImage.Image:
    try:
        return read(image.sample.path)
    except UnreadableImage as error:
        raise DataError(f"{image.sample.path} was readable when the run began: {error}") from error
