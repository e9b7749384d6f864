"""The transforms of the built-in augmentations, in a separate module since albumentations loads slowly."""

from __future__ import annotations

import math
import os
from typing import Any, TypedDict

# albumentations asks the network for newer releases at import unless told not to
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

import albumentations as A
import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tlkit.parts.augmentation import Augmentation
from tlkit.parts.preprocess import Interpolation, Preprocess

Pixels = NDArray[np.uint8]

INTERPOLATIONS: dict[Interpolation, int] = {
    "nearest": cv2.INTER_NEAREST,
    "bilinear": cv2.INTER_LINEAR,
    "bicubic": cv2.INTER_CUBIC,
    "lanczos": cv2.INTER_LANCZOS4,
}


class FixedPreprocess(A.ImageOnlyTransform):  # type: ignore[misc]
    """Resizes and crops with Pillow, exactly as in evaluation."""

    fixed = True  # its result is cached: see tlkit.parts.augmentation.split_fixed_steps

    def __init__(self, preprocess: Preprocess) -> None:
        super().__init__(p=1.0)
        self.preprocess = preprocess

    def apply(self, img: Pixels, **params: object) -> Pixels:
        """Maps ``(H, W, 3)`` to ``(size, size, 3)``."""
        return self.preprocess(Image.fromarray(img))


class ShrinkLarge(A.ImageOnlyTransform):  # type: ignore[misc]
    """Downsamples large images with Pillow, which filters; OpenCV's resizing would skip pixels."""

    fixed = True

    def __init__(self, shorter: int) -> None:
        """Limits the shorter side to `shorter` pixels."""
        super().__init__(p=1.0)
        self.shorter = shorter

    def apply(self, img: Pixels, **params: object) -> Pixels:
        """Maps ``(H, W, 3)`` to an image of the same aspect ratio, at most `shorter` on its shorter side."""
        height, width = img.shape[:2]
        scale = self.shorter / min(height, width)
        if scale >= 1:
            return img
        size = (round(width * scale), round(height * scale))
        image = Image.fromarray(img).resize(size, Image.Resampling.BICUBIC, reducing_gap=3.0)
        return np.asarray(image)


class AffineParameters(TypedDict):
    """One draw of `KerasAffine`.

    Attributes:
        angle: of the rotation, in radians.
        shifts: fractions of height and width.
        shearing: angle of the shear, in radians.
        zooms: factors of height and width.
    """

    angle: float
    shifts: tuple[float, float]
    shearing: float
    zooms: tuple[float, float]


class KerasAffine(A.ImageOnlyTransform):  # type: ignore[misc]
    """The random affine map of Keras' ImageDataGenerator: rotation, shift, shear and zoom."""

    def __init__(self, rotation: float, shift: float, shear: float, zoom: float) -> None:
        """Sets the ranges to draw from: see `tlkit.builtin.augmentations.affine`."""
        super().__init__(p=1.0)
        self.rotation, self.shift, self.shear, self.zoom = rotation, shift, shear, zoom

    def get_params(self) -> AffineParameters:
        """Draws the parameters of one map."""

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
        **params: object,
    ) -> Pixels:
        """Maps ``(H, W, 3)`` to the same size; positions outside of the image get its nearest pixel."""
        height, width = img.shape[:2]
        # Keras composes, in (row, column) order, the map from positions in the result to the image's
        rotation = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
        shear = np.array([[1.0, -math.sin(shearing)], [0.0, math.cos(shearing)]])
        linear = rotation @ shear @ np.diag(zooms)
        centre = np.array([height / 2 - 0.5, width / 2 - 0.5])
        shift = rotation @ np.array([shifts[0] * height, shifts[1] * width])
        offset = shift + centre - linear @ centre
        # OpenCV counts (column, row)
        matrix = np.array([[linear[1, 1], linear[1, 0], offset[1]], [linear[0, 1], linear[0, 0], offset[0]]])
        result = cv2.warpAffine(
            img,
            matrix,
            (width, height),
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REPLICATE,
        )
        return np.asarray(result, np.uint8)


def plain(preprocess: Preprocess) -> Augmentation:
    """Makes the preprocessing alone."""
    return _compose([FixedPreprocess(preprocess)])


def keras_affine(
    preprocess: Preprocess, *, rotation: float, shift: float, shear: float, zoom: float, flip: bool
) -> Augmentation:
    """Makes preprocessing, an affine map and, if `flip`, a horizontal flip of half of the images."""
    steps = [FixedPreprocess(preprocess), KerasAffine(rotation, shift, shear, zoom)]
    return _compose([*steps, A.HorizontalFlip(p=0.5)] if flip else steps)


def random_crop(
    preprocess: Preprocess,
    *,
    scale: tuple[float, float],
    ratio: tuple[float, float],
    flip: bool,
    colour: float,
    erase: float,
) -> Augmentation:
    """Makes a random resized crop, then the flip, the colour jitter and the erasing that are asked for."""
    # the smallest crop of the shrunk image is then still as large as the result
    smallest = math.sqrt(scale[0] * min(ratio[0], 1 / ratio[1]))
    steps = [
        ShrinkLarge(math.ceil(preprocess.size / smallest)),
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
    if erase:
        # as timm's RandomErasing, which makes normalised pixels 0: the mean
        fill = tuple(round(255 * value) for value in preprocess.mean)
        steps.append(A.Erasing(scale=(0.02, 1 / 3), ratio=(0.3, 1 / 0.3), fill=fill, p=erase))
    return _compose(steps)


def _compose(steps: list[Any]) -> Augmentation:
    augmentation: Augmentation = A.Compose(steps)
    return augmentation
