"""Coats: images of fur, as large as the canvas, that an animal's parts are cut from."""

from __future__ import annotations

import cv2
import numpy as np

from tlkit_catsdogs.drawn.brush import CANVAS, Brush, Dice, Pixels, clouds, ellipse, flat, grain, piece
from tlkit_catsdogs.drawn.kinds import Colour, Kind

#: Patterns are computed at this fraction of the size and enlarged, since they are soft anyway.
COARSE = 4


def coat(kind: Kind, base: Colour, second: Colour, brush: Brush, dice: Dice) -> Pixels:
    """Makes the coat of one individual, uint8 RGB ``(CANVAS, CANVAS, 3)``."""
    image = plain(base, dice, roughness=0.25 + 0.35 * kind.fluff)
    if kind.pattern in ("tabby", "brindle"):
        _paint(image, second, _stripes(brush, dice), 160 if kind.pattern == "tabby" else 215)
    elif kind.pattern == "patches":
        _paint(image, second, _blotches(brush, dice, 1.0), dice.between(130, 150))
        if len(kind.second) > 1:
            other = next(colour for colour in kind.second if colour != second)
            _paint(image, dice.colour(other, 0.05), _blotches(brush, dice, 1.0), 165)
    elif kind.pattern == "spots":
        _spots(image, second, brush, dice)
    elif kind.pattern == "ticked":
        _paint(image, second, _blotches(brush, dice, 0.22), 140)
    return image


def plain(colour: Colour, dice: Dice, roughness: float = 0.35) -> Pixels:
    """Makes fur of one colour."""
    return cv2.addWeighted(flat(colour), 1, piece(grain(), dice, CANVAS, CANVAS), roughness, -128 * roughness)


def _paint(image: Pixels, colour: Colour, field: Pixels, above: float) -> None:
    """Colours `image` where `field`, which may have another size, exceeds a threshold."""
    large = cv2.resize(field, (CANVAS, CANVAS), interpolation=cv2.INTER_LINEAR)
    _, mask = cv2.threshold(large, above, 255, cv2.THRESH_BINARY)
    cv2.copyTo(cv2.addWeighted(flat(colour), 0.85, image, 0.15, 0), mask, image)


def _stripes(brush: Brush, dice: Dice) -> Pixels:
    side = CANVAS // COARSE
    y, x = np.mgrid[0:side, 0:side].astype(np.float32) * COARSE / brush.scale
    wobble = piece(clouds(), dice, side, side).astype(np.float32) / 255
    angle, pace = dice.between(-0.5, 0.5), dice.between(9, 15)
    waves: Pixels = np.sin(pace * (x * np.cos(angle) + y * np.sin(angle)) + dice.between(5, 9) * wobble)
    return (127.5 + 127.5 * waves).astype(np.uint8)


def _blotches(brush: Brush, dice: Dice, size: float) -> Pixels:
    """Returns soft noise whose blotches are about `size` units large."""
    crop_side = int(np.clip(110 * CANVAS / (size * brush.scale) / 3, 40, 900))
    crop = piece(clouds(), dice, crop_side, crop_side)
    side = CANVAS // COARSE
    return cv2.resize(crop, (side, side), interpolation=cv2.INTER_AREA)


def _spots(image: Pixels, colour: Colour, brush: Brush, dice: Dice) -> None:
    spots = Brush(image, (0, 0), 1.0)
    size = brush.scale * dice.between(0.09, 0.15)
    for _ in range(int(np.clip(0.06 * (CANVAS / size) ** 2, 10, 160))):
        radius = size * dice.between(0.5, 1.2)
        centre = dice.between(0, CANVAS), dice.between(0, CANVAS)
        spots.fill(ellipse(centre, radius, radius * dice.between(0.7, 1.0)), colour)
