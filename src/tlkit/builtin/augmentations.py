"""The toolkit's own augmentations; the only module that knows albumentations.

An augmentation takes the decoded image, uint8 RGB ``(H, W, 3)`` of any size, and gives
``(size, size, 3)``: a random crop is to see the whole image.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tlkit.parts.preprocess import Preprocess
from tlkit.plugins.hookspecs import hookimpl

if TYPE_CHECKING:
    from tlkit.plugins.registry import Register


@hookimpl
def tlkit_augmentations(register: Register) -> None:
    register("none", none)
    register("affine", affine)
    register("standard", standard)


def none(preprocess: Preprocess) -> Any:
    """The plain image, preprocessed and nothing else."""
    from tlkit.builtin.augmentation_transforms import plain

    return plain(preprocess)


def affine(
    preprocess: Preprocess,
    *,
    rotation: float = 0.0,
    shift: float = 0.0,
    shear: float = 0.0,
    zoom: float = 0.0,
    flip: bool = False,
) -> Any:
    """The preprocessed image turned, moved, sheared and zoomed, as Keras' ImageDataGenerator means them.

    Each is drawn evenly from its range; places from outside the image take its nearest pixel.

    Args:
        rotation: degrees; drawn from -rotation to rotation.
        shift: part of width and of height; each drawn from -shift to shift.
        shear: degrees, drawn from -shear to shear; as in Keras, so 0.2 is a fifth of a degree.
        zoom: width and height are each scaled by a factor drawn from 1 - zoom to 1 + zoom.
        flip: mirror half of the images left to right.
    """
    from tlkit.builtin.augmentation_transforms import keras_affine

    return keras_affine(preprocess, rotation=rotation, shift=shift, shear=shear, zoom=zoom, flip=flip)


def standard(
    preprocess: Preprocess,
    *,
    scale: tuple[float, float] = (0.35, 1.0),
    ratio: tuple[float, float] = (0.75, 1.333),
    flip: bool = True,
    colour: float = 0.2,
) -> Any:
    """A random part of the image, resized, mirrored and with its colours changed a little.

    Args:
        scale: smallest and largest part of the image's area that is cut out.
        ratio: smallest and largest width / height of the cut.
        flip: mirror half of the images left to right.
        colour: how far brightness, contrast and saturation move, 0 to 1; hue moves a quarter of it.
    """
    from tlkit.builtin.augmentation_transforms import random_crop

    return random_crop(preprocess, scale=scale, ratio=ratio, flip=flip, colour=colour)
