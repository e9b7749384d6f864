"""The built-in augmentations.

An augmentation maps the decoded image, uint8 RGB ``(H, W, 3)`` of any size, to ``(size, size, 3)``, so that a
random crop can be taken from the whole image.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tlkit.parts.preprocess import Preprocess
from tlkit.plugins.hookspecs import hookimpl

if TYPE_CHECKING:
    from tlkit.parts.augmentation import Augmentation
    from tlkit.plugins.registry import Register


@hookimpl
def tlkit_augmentations(register: Register) -> None:
    register("none", none)
    register("affine", affine)
    register("standard", standard)


def none(preprocess: Preprocess) -> Augmentation:
    """Preprocesses the image and changes nothing else."""
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
) -> Augmentation:
    """Rotates, shifts, shears and zooms the preprocessed image, as Keras' ImageDataGenerator does.

    Each value is drawn uniformly from its range. Positions outside of the image get its nearest pixel.

    Args:
        rotation: degrees; drawn from -rotation to rotation.
        shift: fraction of width and of height; each drawn from -shift to shift.
        shear: degrees, drawn from -shear to shear; as in Keras, so 0.2 is a fifth of a degree.
        zoom: width and height are each scaled by a factor drawn from 1 - zoom to 1 + zoom.
        flip: flip half of the images horizontally.
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
    erase: float = 0.0,
) -> Augmentation:
    """Crops a random part of the image, resizes it, flips it and jitters its colours.

    This is timm's random resized crop, and with `erase` its random erasing.

    Args:
        scale: smallest and largest area of the crop, as a fraction of the image's.
        ratio: smallest and largest aspect ratio of the crop, width / height.
        flip: flip half of the images horizontally.
        colour: strength of the jitter of brightness, contrast and saturation, 0 to 1; hue gets a quarter.
        erase: fraction of the images in which a rectangle, a fiftieth to a third of the area, is replaced by
            the mean colour: random erasing (Zhong et al. 2020).
    """
    from tlkit.builtin.augmentation_transforms import random_crop

    return random_crop(preprocess, scale=scale, ratio=ratio, flip=flip, colour=colour, erase=erase)
