"""The scene around an animal: background, objects behind and in front of it, light and camera."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from tlkit_catsdogs.drawn.brush import (
    CANVAS,
    SHIFT,
    Brush,
    Dice,
    Pixels,
    Point,
    Points,
    capsule,
    clouds,
    curve,
    ellipse,
    flat,
    grain,
    piece,
)
from tlkit_catsdogs.drawn.kinds import BROWN, CREAM, GOLD, GREY, PINK, SLATE, TAN, WHITE, Colour

SIZE = CANVAS // 2
GREEN, SKY, DARK_GREEN, SAND = (110, 146, 78), (168, 196, 220), (58, 86, 54), (206, 190, 158)
SURROUNDINGS: tuple[Colour, ...] = (GREEN, SKY, DARK_GREEN, SAND, CREAM, GREY, SLATE, TAN, BROWN, WHITE, GOLD)
THINGS: tuple[Colour, ...] = (*SURROUNDINGS, PINK, (186, 60, 54), (62, 90, 150), (230, 200, 70))


@dataclass(frozen=True, slots=True)
class Conditions:
    """How hard a setting's images are.

    Attributes:
        clutter: maximum number of objects behind an animal.
        occlusion: probability that something is in front of it.
        size: smallest and largest radius of the head, as a fraction of the image.
        variation: how far individuals deviate from their kind.
        light: how far brightness, contrast and colour vary.
        noise: maximum strength of the camera's noise.
        blur: maximum blur, in pixels of the final image.
        quality: lowest and highest JPEG quality.
        company: probability of a second animal.
    """

    clutter: int
    occlusion: float
    size: tuple[float, float]
    variation: float
    light: float
    noise: float
    blur: float
    quality: tuple[int, int]
    company: float


def background(dice: Dice) -> Pixels:
    """Draws a background, uint8 RGB ``(CANVAS, CANVAS, 3)``."""
    far, near = (dice.colour(dice.choice(SURROUNDINGS), 0.15) for _ in range(2))
    horizon = int(dice.between(0.25, 0.85) * CANVAS)
    canvas = flat(far)
    cv2.rectangle(canvas, (0, horizon), (CANVAS, CANVAS), near, cv2.FILLED)
    kind = dice.random()
    if kind < 0.25:
        ramp = np.array([[far], [near]], np.uint8)
        canvas = cv2.resize(ramp, (CANVAS, CANVAS), interpolation=cv2.INTER_LINEAR)
    elif kind < 0.5:
        part = int(dice.between(60, 500))
        soft = cv2.resize(piece(clouds(), dice, part, part), (CANVAS, CANVAS), interpolation=cv2.INTER_LINEAR)
        layer = flat(dice.colour(dice.choice(SURROUNDINGS), 0.15))
        _, mask = cv2.threshold(soft, int(dice.between(105, 165)), 255, cv2.THRESH_BINARY)
        canvas = cv2.copyTo(layer, mask, canvas)
    elif kind < 0.7:
        _tiles(canvas, dice)
    texture = dice.between(0.1, 0.7)
    return cv2.addWeighted(canvas, 1, piece(grain(), dice, CANVAS, CANVAS), texture, -128 * texture)


def _tiles(canvas: Pixels, dice: Dice) -> None:
    """Draws parallel lines, such as boards, bricks or a fence."""
    colour = dice.colour(dice.choice(SURROUNDINGS), 0.15)
    step, width = dice.between(14, 60), dice.between(2, 12)
    turn = dice.choice((0.0, np.pi / 2, dice.between(0, np.pi)))
    brush = Brush(canvas, (CANVAS / 2, CANVAS / 2), 1.0, turn)
    for offset in np.arange(-CANVAS, CANVAS, step):
        brush.line(np.array([(-CANVAS, offset), (CANVAS, offset)]), colour, width)


def thing(canvas: Pixels, centre: Point, size: float, dice: Dice) -> None:
    """Draws an object, `size` pixels large: a ball, box, cushion, plant, cone or pot."""
    brush = Brush(canvas, centre, size, dice.between(-0.6, 0.6))
    fur = dice.colour(dice.choice(THINGS), 0.15)
    kind = int(dice.random() * 6)
    if kind == 0:
        brush.fur(ellipse((0, 0), 0.6, 0.6), fur)
    elif kind == 1:
        tall = dice.between(0.4, 1.0)
        brush.fur(np.array([(-0.7, -tall), (0.7, -tall), (0.7, tall), (-0.7, tall)]), fur)
        brush.line(np.array([(-0.7, 0), (0.7, 0)]), dice.colour(dice.choice(THINGS), 0.1), 0.1)
    elif kind == 2:
        brush.fur(ellipse((0, 0), 0.95, dice.between(0.3, 0.6)), fur)
    elif kind == 3:
        for _ in range(7):
            tip = (dice.between(-1, 1), dice.between(-1.1, 0.2))
            line = curve([(0, 0.9), (tip[0] * 0.2, 0.1), tip], 6)
            colour, half = dice.colour(dice.choice((GREEN, DARK_GREEN)), 0.12), np.array([0.09, 0])
            brush.fill(np.concatenate([line - half, line[::-1] + half]), colour)
    elif kind == 4:
        brush.fur(np.array([(-0.55, 0.7), (0, -0.8), (0.55, 0.7)]), fur)
    else:
        brush.fur(capsule((0, -0.4), 0.3, (0, 0.4), 0.5), fur)
        brush.fill(ellipse((0, -0.5), 0.32, 0.1), dice.colour(dice.choice(THINGS), 0.2))


def scatter(canvas: Pixels, count: int, dice: Dice) -> None:
    """Draws objects at random positions."""
    for _ in range(count):
        centre = dice.between(0, CANVAS), dice.between(0, CANVAS)
        thing(canvas, centre, CANVAS * dice.between(0.04, 0.2), dice)


def occlude(canvas: Pixels, head: Point, radius: float, dice: Dice) -> None:
    """Draws an object, grass or bars in front of an animal whose head has a radius of `radius` pixels."""
    kind = dice.random()
    if kind < 0.5:
        angle, distance = dice.between(0, 2 * np.pi), radius * dice.between(0.7, 1.5)
        centre = head[0] + np.cos(angle) * distance, head[1] + np.sin(angle) * distance
        thing(canvas, centre, radius * dice.between(0.4, 0.9), dice)
    elif kind < 0.75:
        bottom = min(head[1] + radius * dice.between(1.0, 2.5), CANVAS)
        for _ in range(30):
            x = dice.between(0, CANVAS)
            tip = (x + dice.between(-20, 20), bottom - radius * dice.between(0.2, 1.3))
            blade: Points = np.array([(x - 4, bottom), tip, (x + 4, bottom)])
            cv2.fillPoly(
                canvas,
                [(blade * (1 << SHIFT)).astype(np.int32)],
                dice.colour(dice.choice((GREEN, DARK_GREEN, SAND)), 0.1),
                cv2.LINE_8,
                SHIFT,
            )
    else:
        bars = Brush(canvas, head, radius, dice.choice((0.0, np.pi / 2, dice.between(0, np.pi))))
        colour, step = dice.colour(dice.choice(THINGS), 0.15), dice.between(0.6, 1.3)
        for offset in np.arange(-4, 4) * step + dice.between(0, step):
            bars.line(np.array([(-9.0, offset), (9.0, offset)]), colour, dice.between(0.08, 0.16))


def photograph(canvas: Pixels, conditions: Conditions, dice: Dice) -> bytes:
    """Returns a photo of the scene: a JPEG file of ``SIZE`` by ``SIZE`` pixels."""
    image = cv2.resize(canvas, (SIZE, SIZE), interpolation=cv2.INTER_AREA)
    blur = dice.between(-0.6, 1.0) * conditions.blur
    if blur > 0.3:
        image = cv2.GaussianBlur(image, (0, 0), blur)
    image = cv2.multiply(image, _light(conditions, dice), scale=1 / 128)
    by = conditions.light
    ramp = np.arange(256) / 255
    gamma = np.exp(dice.between(-1, 1) * by)
    table = np.empty((256, 1, 3), np.uint8)
    for channel in range(3):
        tint = 1 + dice.between(-1, 1) * by * 0.25
        table[:, 0, channel] = np.clip(255 * tint * ramp**gamma, 0, 255)
    image = cv2.LUT(image, table)
    strength = dice.between(0, conditions.noise)
    image = cv2.addWeighted(image, 1, piece(grain(), dice, SIZE, SIZE), strength, -128 * strength)
    quality = int(dice.between(*conditions.quality))
    _, encoded = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    return encoded.tobytes()


def _light(conditions: Conditions, dice: Dice) -> Pixels:
    """Returns an illumination map ``(SIZE, SIZE, 3)``, 128 for neutral: brighter to one side."""
    by = conditions.light
    corners = np.array([[dice.between(-1, 1) for _ in range(3)] for _ in range(3)], np.float32)
    field: Pixels = np.clip(128 * (1 + 0.7 * by * corners), 0, 255).astype(np.uint8)
    large: Pixels = cv2.resize(field, (SIZE, SIZE), interpolation=cv2.INTER_CUBIC)
    return np.repeat(large[..., None], 3, axis=2)
