"""Images to try parts on."""

from __future__ import annotations

import numpy as np
from PIL import Image

#: Width and height of images that every part must take.
PROPORTIONS = ((64, 48), (48, 64), (40, 40), (150, 30), (30, 150))


def noise(width: int, height: int) -> Image.Image:
    """An RGB image of random pixels, the same on every call."""
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))
