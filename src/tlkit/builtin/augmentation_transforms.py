"""The transforms behind the built-in augmentations; apart from them since albumentations loads slowly."""

from __future__ import annotations

import math
import os
from typing import Any, cast

# albumentations asks the network for newer releases at import unless told not to
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

import albumentations as A
import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tlkit.parts.preprocess import Preprocess

Pixels = NDArray[np.uint8]

INTERPOLATIONS = {
    "nearest": cv2.INTER_NEAREST,
    "bilinear": cv2.INTER_LINEAR,
    "bicubic": cv2.INTER_CUBIC,
    "lanczos": cv2.INTER_LANCZOS4,
}


class Preprocessed(A.ImageOnlyTransform):  # type: ignore[misc]
    """The fixed resizing and cropping, with Pillow, as evaluation does it."""

    fixed = True  # its result is remembered: see tlkit.data.pixels

    def __init__(self, preprocess: Preprocess) -> None:
        super().__init__(p=1.0)
        self.preprocess = preprocess

    def apply(self, img: Pixels, **params: Any) -> Pixels:
        """Any size to ``(size, size, 3)``."""
        return self.preprocess(Image.fromarray(img))


class Shrunk(A.ImageOnlyTransform):  # type: ignore[misc]
    """A large image made smaller, with Pillow, which smooths; OpenCV's resizing would skip pixels."""

    fixed = True

    def __init__(self, shorter: int) -> None:
        super().__init__(p=1.0)
        self.shorter = shorter

    def apply(self, img: Pixels, **params: Any) -> Pixels:
        """``(H, W, 3)`` to the same proportions, its shorter side no more than `shorter` pixels."""
        height, width = img.shape[:2]
        scale = self.shorter / min(height, width)
        if scale >= 1:
            return img
        size = (round(width * scale), round(height * scale))
        image = Image.fromarray(img).resize(size, Image.Resampling.BICUBIC, reducing_gap=3.0)
        return np.asarray(image)


class KerasAffine(A.ImageOnlyTransform):  # type: ignore[misc]
    """The random affine map of Keras' ImageDataGenerator: rotation, shift, shear, zoom about the centre."""

    def __init__(self, rotation: float, shift: float, shear: float, zoom: float) -> None:
        super().__init__(p=1.0)
        self.rotation, self.shift, self.shear, self.zoom = rotation, shift, shear, zoom

    def get_params(self) -> dict[str, Any]:
        """Draws one map; shifts as parts of height and width."""

        def draw(limit: float) -> float:
            return float(self.py_random.uniform(-limit, limit))

        return {
            "angle": math.radians(draw(self.rotation)),
            "shifts": (draw(self.shift), draw(self.shift)),
            "shearing": math.radians(draw(self.shear)),
            "zooms": (1 + draw(self.zoom), 1 + draw(self.zoom)),
        }

    def apply(
        self,
        img: Pixels,
        angle: float = 0.0,
        shifts: tuple[float, float] = (0.0, 0.0),
        shearing: float = 0.0,
        zooms: tuple[float, float] = (1.0, 1.0),
        **params: Any,
    ) -> Pixels:
        """Maps ``(H, W, 3)`` to the same size, with the nearest pixel where the map leaves the image."""
        height, width = img.shape[:2]
        # Keras composes, in (row, column) order, the map from a result's place to the image's
        turned = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
        sheared = np.array([[1.0, -math.sin(shearing)], [0.0, math.cos(shearing)]])
        linear = turned @ sheared @ np.diag(zooms)
        centre = np.array([height / 2 - 0.5, width / 2 - 0.5])
        moved = turned @ np.array([shifts[0] * height, shifts[1] * width])
        offset = moved + centre - linear @ centre
        # OpenCV counts (column, row)
        matrix = np.array([[linear[1, 1], linear[1, 0], offset[1]], [linear[0, 1], linear[0, 0], offset[0]]])
        result: Any = cv2.warpAffine(
            img,
            matrix,
            (width, height),
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REPLICATE,
        )
        return cast(Pixels, result)


def plain(preprocess: Preprocess) -> A.Compose:
    """Preprocessing alone."""
    return A.Compose([Preprocessed(preprocess)])


def keras_affine(
    preprocess: Preprocess, *, rotation: float, shift: float, shear: float, zoom: float, flip: bool
) -> A.Compose:
    """Preprocessing, the affine map, a mirror image half of the time."""
    steps: list[Any] = [Preprocessed(preprocess), KerasAffine(rotation, shift, shear, zoom)]
    return A.Compose([*steps, A.HorizontalFlip(p=0.5)] if flip else steps)


def random_crop(
    preprocess: Preprocess,
    *,
    scale: tuple[float, float],
    ratio: tuple[float, float],
    flip: bool,
    colour: float,
) -> A.Compose:
    """Random resized crop, mirror image, colour jitter."""
    # the smallest crop is then still as large as the result
    least = math.sqrt(scale[0] * min(ratio[0], 1 / ratio[1]))
    steps: list[Any] = [
        Shrunk(math.ceil(preprocess.size / least)),
        A.RandomResizedCrop(
            size=(preprocess.size, preprocess.size),
            scale=scale,
            ratio=ratio,
            interpolation=INTERPOLATIONS[preprocess.interpolation],
        ),
    ]
    if flip:
        steps.append(A.HorizontalFlip(p=0.5))
    if colour:
        jitter = (1 - colour, 1 + colour)
        steps.append(
            A.ColorJitter(
                brightness=jitter, contrast=jitter, saturation=jitter, hue=(-colour / 4, colour / 4), p=1.0
            )
        )
    return A.Compose(steps)
