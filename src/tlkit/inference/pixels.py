"""Reads images in whatever form they come, up to the network's pixels."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PillowImage

from tlkit.data.image_paths import image_paths
from tlkit.data.images import UnreadableImage, read_image, refuse_unreadable, upright
from tlkit.data.views import Pixels
from tlkit.errors import DataError
from tlkit.parts.preprocess import Preprocess

#: A file, a Pillow image, or pixels: uint8 ``(H, W)``, ``(H, W, 3)`` RGB or ``(H, W, 4)`` RGBA.
ImageLike = Path | str | PillowImage.Image | NDArray[np.uint8]
#: One image or several; an array with one dimension more is a batch, and a folder stands for its images.
Images = ImageLike | Iterable[ImageLike]


def as_images(images: Images) -> Iterable[ImageLike]:
    """Returns images as an iterable; a single one is an iterable of one.

    A path may be a folder, for the images in it and in all folders below it, or a pattern.

    Raises:
        DataError: a path names no image, or this is nothing that could be images.
    """
    if isinstance(images, str | Path):
        return image_paths([str(images)], ())
    if not isinstance(images, Iterable | PillowImage.Image):
        raise DataError(f"{images!r} is no image: give files, a folder, Pillow images or uint8 arrays")
    if isinstance(images, np.ndarray):
        return [images] if images.dtype != np.object_ and _has_shape_of_one(images) else images
    return [images] if isinstance(images, PillowImage.Image) else images


def read_pixels(image: ImageLike, preprocess: Preprocess) -> Pixels:
    """Reads and preprocesses an image, up to normalisation: uint8 RGB ``(size, size, 3)``.

    Raises:
        UnreadableImage: it cannot be read or resized.
    """
    with refuse_unreadable():
        return preprocess(decode_image(image))


def decode_image(image: ImageLike) -> PillowImage.Image:
    """Returns an image, in whatever form it comes, as an upright RGB image.

    Raises:
        UnreadableImage: it cannot be read.
    """
    if isinstance(image, str | Path):
        return read_image(Path(image))
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or not image.size or not _has_shape_of_one(image):
            raise UnreadableImage(
                f"an array of {image.dtype} {image.shape} is not an image: it must be uint8 (H, W), "
                "(H, W, 3) RGB or (H, W, 4) RGBA"
            )
        return upright(PillowImage.fromarray(image))
    if isinstance(image, PillowImage.Image):
        return upright(image)
    raise UnreadableImage(f"{type(image).__name__} is neither a path nor a Pillow image nor an array")


def _has_shape_of_one(pixels: NDArray[np.uint8]) -> bool:
    """Returns whether an array has the shape of one image, and not of several."""
    return pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] in (3, 4))
