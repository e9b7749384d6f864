"""Images that parts are checked with."""

from __future__ import annotations

import numpy as np
from PIL import Image

#: Width and height, in pixels, of images that every part must accept.
IMAGE_SIZES = ((64, 48), (48, 64), (40, 40), (150, 30), (30, 150))


def noise(width: int, height: int) -> Image.Image:
    """Returns an RGB image of random pixels, the same on every call."""
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))
