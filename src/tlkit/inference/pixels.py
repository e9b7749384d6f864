"""Reads images in whatever form they come, up to the network's pixels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PillowImage

from tlkit.data.images import UnreadableImage, read_image, refuse_unreadable, upright
from tlkit.data.views import Pixels
from tlkit.parts.preprocess import Preprocess

#: A file, a Pillow image, or pixels: uint8 ``(H, W)``, ``(H, W, 3)`` RGB or ``(H, W, 4)`` RGBA.
ImageLike = Path | str | PillowImage.Image | NDArray[np.uint8]


def read_pixels(image: ImageLike, preprocess: Preprocess) -> Pixels:
    """Reads and preprocesses an image, up to normalisation: uint8 RGB ``(size, size, 3)``.

    Raises:
        UnreadableImage: it cannot be read or resized.
    """
    with refuse_unreadable():
        return preprocess(_decode(image))


def _decode(image: ImageLike) -> PillowImage.Image:
    if isinstance(image, str | Path):
        return read_image(Path(image))
    if isinstance(image, np.ndarray):
        colour = image.ndim == 3 and image.shape[2] in (3, 4)
        if image.dtype != np.uint8 or not image.size or not (colour or image.ndim == 2):
            raise UnreadableImage(
                f"an array of {image.dtype} {image.shape} is not an image: it must be uint8 (H, W), "
                "(H, W, 3) RGB or (H, W, 4) RGBA"
            )
        return upright(PillowImage.fromarray(image))
    if isinstance(image, PillowImage.Image):
        return upright(image)
    raise UnreadableImage(f"{type(image).__name__} is neither a path nor a Pillow image nor an array")
