"""Drawing filled shapes in an animal's own coordinates onto an image of twice the final size."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from functools import cache
from itertools import pairwise
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from tlkit_catsdogs.drawn.kinds import Colour

#: uint8, though OpenCV's types do not say so.
Pixels = NDArray[Any]
Points = NDArray[np.float64]
#: x and y, in a brush's own units.
Point = tuple[float, float] | Points

#: Everything is drawn at this size, in pixels, and halved at the end: smooth edges for little time.
CANVAS = 320
SHIFT = 4
_TURNS = np.linspace(0, 2 * np.pi, 28, endpoint=False)
UNIT_CIRCLE = np.stack([np.cos(_TURNS), np.sin(_TURNS)], axis=1)


class Dice(random.Random):
    """A seeded generator of the random numbers and colours of a drawing."""

    def around(self, value: float, spread: float) -> float:
        """Returns `value` plus or minus at most the fraction `spread` of it: 0.1 is ten percent."""
        return value * (1 + spread * (2 * self.random() - 1))

    def between(self, low: float, high: float) -> float:
        """Returns a number between two others."""
        return low + (high - low) * self.random()

    def chance(self, probability: float) -> bool:
        """Returns True with that probability."""
        return self.random() < probability

    def colour(self, base: Colour, spread: float) -> Colour:
        """Returns a colour near `base`: lightness and each channel shift by up to `spread` times 255."""
        light = self.between(-spread, spread) * 255
        red, green, blue = (
            min(255, max(0, int(channel + light + self.between(-spread, spread) * 100))) for channel in base
        )
        return red, green, blue


@cache
def clouds() -> Pixels:
    """Returns soft noise ``(1024, 1024)`` that wraps around, in several octaves; always the same."""
    generator = np.random.Generator(np.random.PCG64(7))
    total: NDArray[np.float32] = np.zeros((1024, 1024), np.float32)
    for octave in range(5):
        cells = 8 << octave
        noise = generator.random((cells, cells), dtype=np.float32)
        wrapped = np.tile(noise, (3, 3))
        large = np.asarray(cv2.resize(wrapped, (3072, 3072), interpolation=cv2.INTER_CUBIC), np.float32)
        total += large[1024:2048, 1024:2048] / np.float32(1.6**octave)
    low, high = total.min(), total.max()
    scaled: Pixels = (total - low) * (255 / (high - low))
    return scaled.astype(np.uint8)


@cache
def grain() -> Pixels:
    """Returns fine noise ``(1024, 1024, 3)`` around 128, partly grey, partly coloured; always the same."""
    generator = np.random.Generator(np.random.PCG64(11))
    grey = generator.normal(0, 22, (1024, 1024, 1))
    tinted = generator.normal(0, 14, (1024, 1024, 3))
    return np.clip(128 + grey + tinted, 0, 255).astype(np.uint8)


@cache
def ball() -> Pixels:
    """Returns the shading of a rounded object, ``(64, 64, 3)``, lit from above left."""
    y, x = np.mgrid[-1:1:64j, -1:1:64j]
    light = 0.97 - 0.16 * (x + y) - 0.22 * (x**2 + y**2)
    return np.repeat(np.clip(light * 200, 60, 255).astype(np.uint8)[..., None], 3, axis=2)


def flat(colour: Colour, height: int = CANVAS, width: int = CANVAS) -> Pixels:
    """Returns an image of one colour (OpenCV fills it ten times faster than NumPy)."""
    image = np.empty((height, width, 3), np.uint8)
    cv2.rectangle(image, (0, 0), (width, height), colour, cv2.FILLED)
    return image


def piece(noise: Pixels, dice: Dice, height: int, width: int) -> Pixels:
    """Returns a random crop of a noise image."""
    top = int(dice.random() * (noise.shape[0] - height))
    left = int(dice.random() * (noise.shape[1] - width))
    return noise[top : top + height, left : left + width]


def capsule(start: Point, start_radius: float, end: Point, end_radius: float) -> Points:
    """Returns the outline of two circles and the area between them."""
    both = np.concatenate([UNIT_CIRCLE * start_radius + start, UNIT_CIRCLE * end_radius + end])
    return cv2.convexHull(both.astype(np.float32))[:, 0].astype(np.float64)


def ellipse(centre: Point, width: float, height: float, turn: float = 0.0) -> Points:
    """Returns the outline of an ellipse with these half axes, rotated by `turn` radians."""
    points = UNIT_CIRCLE * (width, height)
    if turn:
        cosine, sine = np.cos(turn), np.sin(turn)
        points = points @ np.array([[cosine, sine], [-sine, cosine]])
    return points + centre


def curve(points: Sequence[Point], steps: int = 12) -> Points:
    """Returns a Bézier curve from the first of three or four points to the last."""
    t = np.linspace(0, 1, steps)[:, None]
    layer = [np.asarray(point, dtype=np.float64) for point in points]
    while len(layer) > 1:
        layer = [(1 - t) * first + t * second for first, second in pairwise(layer)]
    return layer[0]


class Brush:
    """Draws onto one canvas, in its own coordinates.

    Attributes:
        canvas: uint8 RGB ``(CANVAS, CANVAS, 3)``.
        scale: pixels per unit.
    """

    def __init__(self, canvas: Pixels, origin: Point, scale: float, turn: float = 0.0, flip: bool = False):
        self.canvas = canvas
        self.scale = scale
        cosine, sine = np.cos(turn) * scale, np.sin(turn) * scale
        sign = -1 if flip else 1
        self._matrix = np.array([[cosine * sign, sine * sign], [-sine, cosine]])
        self._origin = np.array(origin)
        self._mask = np.zeros(canvas.shape[:2], np.uint8)

    def to_canvas(self, points: Points) -> NDArray[np.int32]:
        """Converts the brush's coordinates to the canvas's, as OpenCV expects them with `SHIFT`."""
        on_canvas: Points = (points @ self._matrix + self._origin) * (1 << SHIFT)
        return np.clip(on_canvas, -32000, 32000).astype(np.int32)

    def fill(self, points: Points, colour: Colour) -> None:
        """Fills a shape with one colour."""
        cv2.fillPoly(self.canvas, [self.to_canvas(points)], colour, cv2.LINE_8, SHIFT)

    def line(self, points: Points, colour: Colour, width: float) -> None:
        """Draws a line `width` units wide."""
        thickness = max(1, round(width * self.scale))
        cv2.polylines(self.canvas, [self.to_canvas(points)], False, colour, thickness, cv2.LINE_8, SHIFT)

    def fur(
        self,
        points: Points,
        coat: Pixels | Colour,
        *,
        ragged: Callable[[Points], Points] | None = None,
        dim: float = 1.0,
    ) -> None:
        """Fills a shape with shaded fur, as if it were rounded.

        Args:
            points: its outline.
            coat: one colour, or an image as large as the canvas that the shape is cut from.
            ragged: roughens the outline as fur does.
            dim: brightness; less than 1 is darker.
        """
        outline = self.to_canvas(points if ragged is None else ragged(points))
        left, top, width, height = cv2.boundingRect(outline >> SHIFT)
        left, top, right, bottom = (
            max(left, 0),
            max(top, 0),
            min(left + width + 1, CANVAS),
            min(top + height + 1, CANVAS),
        )
        if right <= left or bottom <= top:
            return
        part = np.s_[top:bottom, left:right]
        mask = self._mask[part]
        mask[:] = 0
        corner = np.array([left, top], np.int32) << SHIFT
        cv2.fillPoly(mask, [outline - corner], (255,), cv2.LINE_8, SHIFT)
        shade = cv2.resize(ball(), (right - left, bottom - top), interpolation=cv2.INTER_LINEAR)
        shown = flat(coat, bottom - top, right - left) if isinstance(coat, tuple) else coat[part]
        shaded = cv2.multiply(shown, shade, scale=dim / 185)
        cv2.copyTo(shaded, mask, self.canvas[part])
