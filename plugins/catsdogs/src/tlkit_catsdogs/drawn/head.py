"""An animal's head: ears, skull, markings, eyes and muzzle, turned to either side."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tlkit_catsdogs.drawn.brush import Brush, Dice, Pixels, Point, Points, capsule, curve, ellipse
from tlkit_catsdogs.drawn.coats import plain
from tlkit_catsdogs.drawn.individual import Individual, ragged
from tlkit_catsdogs.drawn.kinds import BLACK, CHOCOLATE, PINK, WHITE, Colour

HORN, TONGUE, WHISKER, SHINE = (222, 212, 186), (206, 92, 100), (236, 234, 228), (250, 250, 250)
#: Ears that are in front of the head.
HANGING = ("floppy", "folded")


def draw_head(brush: Brush, animal: Individual, dice: Dice) -> None:
    """Draws a head around the brush's origin."""
    kind, turn = animal.kind, animal.turn
    width, height = kind.head
    rough = ragged(kind.fluff, dice)
    if kind.ears not in HANGING:
        _ears(brush, animal, dice)
    _horns(brush, animal)
    skull = capsule((0, -0.05), width * 0.94, (turn * 0.1, 0.38), kind.jaw * 0.82)
    skull[:, 1] *= height
    brush.fur(skull, animal.coat, ragged=rough)
    shift = turn * 0.42
    _face_marks(brush, animal, shift, dice)
    if kind.ears in HANGING:
        _ears(brush, animal, dice)
    _eyes(brush, animal, shift, dice)
    _muzzle(brush, animal, shift, dice)


@dataclass(frozen=True, slots=True)
class _Ear:
    """One ear's geometry: its root, direction, half width across that direction, and length."""

    side: int
    root: Points
    out: Points
    across: Points
    length: float
    wide: float
    near: float

    @property
    def tip(self) -> Points:
        return self.root + self.out * self.length


def _ears(brush: Brush, animal: Individual, dice: Dice) -> None:
    kind, turn = animal.kind, animal.turn
    fur = animal.marked if "points" in kind.marks else animal.coat
    inner = dice.colour(PINK, 0.1) if sum(animal.base) > 240 else dice.colour((120, 88, 84), 0.06)
    for side in (-1, 1):
        near = 1 - 0.3 * turn * side  # the ear that is turned away is seen from its edge
        angle = np.radians(kind.spread) * side * dice.around(1, 0.12)
        root = np.array(
            [np.sin(angle) * kind.head[0] * 0.82 - turn * 0.16, -np.cos(angle) * kind.head[1] * 0.8]
        )
        lean = angle * 0.75
        out = np.array([np.sin(lean), -np.cos(lean)])
        across = np.array([np.cos(lean), np.sin(lean)]) * kind.ear[1] * near
        ear = _Ear(side, root, out, across, kind.ear[0] * dice.around(1, 0.08), kind.ear[1], near)
        if kind.ears == "folded":
            brush.fur(_folded(ear), fur, dim=0.72)
        elif kind.ears == "floppy":
            brush.fur(_floppy(ear, kind.ear[0]), fur, dim=0.8)
        else:
            shape, middle = {"round": _round, "sideways": _sideways, "long": _long}.get(kind.ears, _pointed)(
                ear
            )
            brush.fur(shape, fur)
            brush.fill(middle + (shape - middle) * 0.6, inner)
            if kind.ears == "tufted":
                brush.line(np.array([ear.tip - ear.out * 0.14, ear.tip + ear.out * 0.16]), animal.second, 0.1)


def _pointed(ear: _Ear) -> tuple[Points, Points]:
    halfway = ear.root + ear.out * ear.length * 0.55
    side = ear.across * 0.62
    shape = np.array(
        [
            ear.root - ear.across,
            halfway - side,
            ear.tip,
            halfway + side,
            ear.root + ear.across,
            ear.root - ear.out * 0.3,
        ]
    )
    return shape, ear.root + ear.out * ear.length * 0.3


def _round(ear: _Ear) -> tuple[Points, Points]:
    middle = ear.root + ear.out * ear.length * 0.5
    return ellipse(middle, ear.wide * ear.near, ear.length * 0.8), middle


def _sideways(ear: _Ear) -> tuple[Points, Points]:
    middle = ear.root + ear.out * ear.length * 0.75
    return ellipse(middle, ear.length * 0.9 * ear.near, ear.wide), middle


def _long(ear: _Ear) -> tuple[Points, Points]:
    shape = capsule(ear.root, ear.wide * ear.near, ear.tip, ear.wide * 0.55 * ear.near)
    return shape, (ear.root + ear.tip) / 2


def _folded(ear: _Ear) -> Points:
    tip = ear.root + np.array([ear.side * ear.wide * 0.7, ear.length * 0.7])
    return np.array([ear.root - ear.across, ear.root + ear.out * 0.2, ear.root + ear.across, tip])


def _floppy(ear: _Ear, long: float) -> Points:
    top = ear.root + np.array([ear.side * 0.06, 0.05])
    tip = ear.root + np.array([ear.side * (0.3 + ear.wide * 0.5), long])
    return capsule(top, ear.wide * 0.62, tip, ear.wide * ear.near)


def _horns(brush: Brush, animal: Individual) -> None:
    kind = animal.kind
    for side in (-1, 1):
        if kind.horns == "short":
            line = curve([(side * 0.5, -0.7), (side * 1.0, -0.9), (side * 0.9, -1.5)])
            brush.line(line, HORN, 0.2)
        elif kind.horns == "antlers":
            line = curve([(side * 0.35, -0.75), (side * 1.2, -1.2), (side * 0.9, -2.2)])
            brush.line(line, CHOCOLATE, 0.14)
            for index in (4, 8):
                x, y = line[index]
                brush.line(np.array([(x, y), (x - side * 0.45, y - 0.55)]), CHOCOLATE, 0.1)


def _face_marks(brush: Brush, animal: Individual, shift: float, dice: Dice) -> None:
    kind = animal.kind
    _, apart, up = kind.eye
    if kind.pattern == "tabby":
        for offset in (-0.3, 0.0, 0.3):
            top = (shift * 0.6 + offset * 1.3, -0.75 * kind.head[1])
            brush.line(np.array([top, (shift + offset * 0.8, -0.32)]), animal.second, 0.1)
        for side in (-1, 1):
            brush.line(
                np.array([(shift + side * 0.62, 0.12), (shift * 0.5 + side * 0.95, 0.02)]),
                animal.second,
                0.08,
            )
    if "blaze" in kind.marks:
        brush.fur(capsule((shift * 0.8, -0.6), 0.1, (shift, 0.3), 0.22), plain(WHITE, dice))
    if "mask" in kind.marks:
        if kind.name == "raccoon":
            for side in (-1, 1):
                brush.fur(ellipse((shift + side * apart, -up), 0.36, 0.26, side * 0.5), animal.marked)
        else:
            brush.fur(ellipse((shift, 0.28), kind.jaw * 0.62, 0.62), animal.marked)
    if "eye-patch" in kind.marks:
        light = animal.kind.name == "husky"
        for side in (-1, 1):
            middle = (shift + side * apart, -up - (0.2 if light else -0.04))
            brush.fur(
                ellipse(middle, 0.2 if light else 0.3, 0.15 if light else 0.32, side * 0.5), animal.marked
            )


def _eyes(brush: Brush, animal: Individual, shift: float, dice: Dice) -> None:
    kind, turn = animal.kind, animal.turn
    radius, apart, up = kind.eye
    iris = dice.colour(dice.choice(kind.eyes), 0.06)
    shut = dice.chance(0.05)
    narrow = dice.between(0.7, 1.0)
    for side in (-1, 1):
        x, y = shift + side * apart * (1 - 0.18 * abs(turn)), -up
        wide = radius * (1 - 0.35 * max(0.0, turn * side))
        if shut:
            brush.line(curve([(x - wide, y), (x, y + radius * 0.6), (x + wide, y)], 6), BLACK, 0.07)
            continue
        slant = -0.25 * side if kind.pupil == "slit" else 0.0
        brush.fill(ellipse((x, y), wide * 1.22, radius * 1.18 * narrow, slant), BLACK)
        brush.fill(ellipse((x, y), wide, radius * narrow, slant), iris)
        pupil = {"slit": (0.26, 0.9), "bar": (0.75, 0.4), "round": (0.58, 0.62)}[kind.pupil]
        if kind.pupil == "slit":
            pupil = (dice.between(0.2, 0.6), 0.9)
        brush.fill(ellipse((x, y), wide * pupil[0], radius * pupil[1] * narrow), BLACK)
        brush.fill(ellipse((x - wide * 0.3, y - radius * 0.35), radius * 0.2, radius * 0.2), SHINE)


def _muzzle(brush: Brush, animal: Individual, shift: float, dice: Dice) -> None:
    kind, turn = animal.kind, animal.turn
    out, wide = kind.muzzle
    base = (shift, 0.42)
    tip = (shift + turn * out * 1.15, 0.42 + out * 0.28 * (1 - abs(turn) * 0.6))
    if kind.nose == "trunk":
        _trunk(brush, animal, base, tip, dice)
        return
    if kind.nose == "beak":
        beak = np.array([(shift - 0.16, 0.15), (shift + 0.16, 0.15), (shift + turn * 0.2, 0.6)])
        brush.fill(beak, kind.nose_colour)
        return
    fur = animal.marked if "muzzle" in kind.marks or kind.name == "sheep" else animal.coat
    mouth = tip[1] + wide * 0.42
    if dice.chance(kind.tongue):
        tongue = capsule((tip[0], mouth), wide * 0.32, (tip[0] + 0.05, mouth + wide * 0.8), wide * 0.3)
        brush.fill(tongue, TONGUE)
    jaw = ellipse((tip[0] * 0.7 + base[0] * 0.3, tip[1] + wide * 0.42), wide * 0.62, wide * 0.5)
    brush.fur(jaw, fur, dim=0.8)
    brush.fur(capsule(base, wide * 0.95, tip, wide * (0.86 if out < 0.3 else 0.74)), fur, dim=1.05)
    if kind.nose in ("disc", "wide"):
        _snout(brush, animal, tip)
    else:
        _nose_and_mouth(brush, animal, tip, mouth)


def _trunk(brush: Brush, animal: Individual, base: Point, tip: Point, dice: Dice) -> None:
    """Draws an elephant's trunk, or the long bare nose of a koala."""
    elephant = animal.kind.name == "elephant"
    end = (tip[0] + animal.turn * 0.4, tip[1] + (1.5 if elephant else 0.12))
    skin: Pixels = animal.coat if elephant else plain(animal.kind.nose_colour, dice)
    brush.fur(capsule((base[0], 0.2), 0.34, end, 0.2), skin)


def _snout(brush: Brush, animal: Individual, tip: Point) -> None:
    """Draws a pig's disc, or the broad nose of a cow or horse."""
    kind, wide = animal.kind, animal.kind.muzzle[1]
    disc = kind.nose == "disc"
    brush.fill(
        ellipse(tip, wide * (0.72 if disc else 0.85), wide * (0.56 if disc else 0.5)), kind.nose_colour
    )
    for side in (-1, 1):
        if disc:
            nostril = ellipse((tip[0] + side * wide * 0.28, tip[1]), wide * 0.12, wide * 0.2)
        else:
            nostril = ellipse((tip[0] + side * wide * 0.45, tip[1] - 0.04), wide * 0.16, wide * 0.12)
        brush.fill(nostril, CHOCOLATE if disc else BLACK)


def _nose_and_mouth(brush: Brush, animal: Individual, tip: Point, mouth: float) -> None:
    kind = animal.kind
    out, wide = kind.muzzle
    y = tip[1] - wide * (0.35 if out < 0.3 else 0.28)
    size = wide * (0.46 if kind.nose == "large" else 0.3)
    if kind.nose == "large":
        brush.fill(ellipse((tip[0], y), size, size * 0.72), kind.nose_colour)
        shine = ellipse((tip[0] - size * 0.3, y - size * 0.3), size * 0.25, size * 0.14)
        brush.fill(shine, (150, 150, 152))
    else:
        triangle = np.array([(-size, -size * 0.6), (size, -size * 0.6), (0, size * 0.7)])
        brush.fill(triangle + np.array([tip[0], y]), kind.nose_colour)
    red, green, blue = animal.base
    dark: Colour = (max(red - 90, 20), max(green - 90, 16), max(blue - 90, 16))
    brush.line(np.array([(tip[0], y + size * 0.5), (tip[0], mouth - 0.06)]), dark, 0.05)
    for side in (-1, 1):
        corner = (tip[0] + side * wide * 0.6, mouth - 0.04)
        lip = curve([(tip[0], mouth - 0.06), (tip[0] + side * wide * 0.3, mouth + 0.1), corner], 6)
        brush.line(lip, dark, 0.05)
        if kind.whiskers:
            for slope in (-0.12, 0.05, 0.22):
                start = (tip[0] + side * wide * 0.5, tip[1] + slope * 0.4)
                brush.line(np.array([start, (start[0] + side * 0.95, start[1] + slope)]), WHISKER, 0.025)
