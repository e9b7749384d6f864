"""One animal: a body in a pose, and a head with a face that may be turned."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from tlkit_catsdogs.drawn.brush import Brush, Dice, Pixels, Point, Points, capsule, curve, ellipse
from tlkit_catsdogs.drawn.coats import coat, plain
from tlkit_catsdogs.drawn.kinds import BLACK, CHOCOLATE, PINK, WHITE, Colour, Kind

Pose = Literal["portrait", "sitting", "standing", "lying"]


@dataclass(frozen=True)
class Individual:
    """What an animal is painted with, and how its proportions differ from its kind's.

    Attributes:
        kind: its kind, with proportions of its own.
        base: colour of the coat.
        second: colour of pattern and marks.
        coat: fur with its pattern.
        marked: fur of the second colour.
        turn: of the head, -1 to 1; the animal faces right at 1.
    """

    kind: Kind
    base: Colour
    second: Colour
    coat: Pixels
    marked: Pixels
    turn: float


def draw_animal(brush: Brush, kind: Kind, pose: Pose, dice: Dice, variation: float) -> None:
    """Draws an animal of a kind with its head's middle at the brush's origin.

    Args:
        brush: where, how large and how it is turned.
        kind: of animal.
        pose: how it holds itself.
        dice: draws everything individual.
        variation: how far proportions and colours stray, about 0.1 to 0.2.
    """
    kind = _vary(kind, dice, variation)
    base = dice.colour(dice.choice(kind.coats), variation * 0.6)
    second = dice.colour(dice.choice(kind.second), variation * 0.3)
    reach = 0.9 if pose == "standing" else 0.55
    animal = Individual(
        kind,
        base,
        second,
        coat(kind, base, second, brush, dice),
        plain(second, dice),
        dice.between(-reach, reach) if pose != "standing" else dice.between(0.1, reach),
    )
    {"portrait": _portrait, "sitting": _sitting, "standing": _standing, "lying": _lying}[pose](
        brush, animal, dice
    )
    _head(brush, animal, dice)


def _vary(kind: Kind, dice: Dice, by: float) -> Kind:
    from dataclasses import replace

    def pair(values: tuple[float, float]) -> tuple[float, float]:
        return dice.around(values[0], by), dice.around(values[1], by)

    radius, apart, up = kind.eye
    return replace(
        kind,
        head=pair(kind.head),
        jaw=dice.around(kind.jaw, by),
        ear=pair(kind.ear),
        spread=dice.around(kind.spread, by),
        muzzle=pair(kind.muzzle),
        eye=(dice.around(radius, by), dice.around(apart, by / 2), up + dice.between(-by, by) / 3),
        body=pair(kind.body),
        legs=pair(kind.legs),
        neck=dice.around(kind.neck, by),
        tail_length=dice.around(kind.tail_length, 2 * by),
    )


def _ragged(fluff: float, dice: Dice) -> Callable[[Points], Points] | None:
    """Makes an outline as ragged as the fur is long."""
    if fluff < 0.1:
        return None

    def ragged(points: Points) -> Points:
        dense = np.repeat(points, 2, axis=0)
        dense[1::2] = (points + np.roll(points, -1, axis=0)) / 2
        middle = dense.mean(axis=0)
        jitter = np.array([dice.random() for _ in range(len(dense))])[:, None]
        return middle + (dense - middle) * (1 + 0.13 * fluff * (jitter - 0.3))

    return ragged


# --- bodies -----------------------------------------------------------------------------------------


def _portrait(brush: Brush, animal: Individual, dice: Dice) -> None:
    kind = animal.kind
    _mane(brush, animal, dice)
    lean = dice.between(-0.4, 0.4)
    thick = kind.body[1]
    rough = _ragged(kind.fluff, dice)
    shoulders = (lean, 1.6 + kind.neck + thick)
    brush.fur(capsule((0, 0.5), 0.72, shoulders, thick * 1.5), animal.coat, ragged=rough, dim=0.92)
    if "bib" in kind.marks:
        brush.fur(capsule((0, 0.8), 0.4, shoulders, thick * 0.7), animal.marked, ragged=rough)


def _sitting(brush: Brush, animal: Individual, dice: Dice) -> None:
    kind = animal.kind
    length, thick = kind.body
    rough = _ragged(kind.fluff, dice)
    lean = dice.between(-0.5, 0.5)
    chest, hip = (lean * 0.3, 0.9 + kind.neck), (lean, 0.7 + kind.neck + length * 0.75)
    ground = hip[1] + thick * 0.8
    _tail(brush, animal, (hip[0] + thick * 0.6, ground - 0.3), dice, low=True)
    for side in (-1, 1):
        foot = (hip[0] + side * thick * 1.05, ground - 0.3)
        brush.fur(ellipse(foot, thick * 0.55, thick * 0.62), animal.coat, ragged=rough, dim=0.85)
    brush.fur(capsule(chest, thick * 0.78, hip, thick * 1.12), animal.coat, ragged=rough, dim=0.95)
    if kind.neck > 0.7:
        brush.fur(capsule((0, 0.3), 0.45, chest, thick * 0.6), animal.coat, ragged=rough, dim=0.9)
    if "bib" in kind.marks:
        brush.fur(
            capsule((chest[0], chest[1] + 0.1), thick * 0.45, hip, thick * 0.5), animal.marked, ragged=rough
        )
    for side in (-1, 1):
        top = (chest[0] + side * thick * 0.42, chest[1] + 0.4)
        foot = (hip[0] * 0.6 + side * thick * 0.45, ground + 0.1)
        _leg(brush, animal, top, foot, 1.0)
    _mane(brush, animal, dice)


def _standing(brush: Brush, animal: Individual, dice: Dice) -> None:
    kind = animal.kind
    length, thick = kind.body
    rough = _ragged(kind.fluff, dice)
    down = 0.35 + kind.neck
    chest = (-0.75 - kind.neck * 0.35, down + thick * 0.65)
    rump = (chest[0] - length * 0.85, chest[1] + dice.between(-0.2, 0.25))
    ground = chest[1] + thick * 0.6 + kind.legs[0]
    _tail(brush, animal, (rump[0] - thick * 0.6, rump[1] - thick * 0.4), dice, low=False)
    stride = dice.between(0.05, 0.5)
    for hip, way in ((chest, 1), (rump, -1)):
        _leg(brush, animal, (hip[0] + 0.3, hip[1] + 0.3), (hip[0] + 0.35 + way * stride, ground - 0.12), 0.68)
    brush.fur(capsule(chest, thick * 0.95, rump, thick * 0.9), animal.coat, ragged=rough, dim=0.95)
    if "saddle" in kind.marks:
        top = (chest[0] - 0.2, chest[1] - thick * 0.42), (rump[0] + 0.1, rump[1] - thick * 0.36)
        saddle = plain(BLACK, dice)
        brush.fur(capsule(top[0], thick * 0.5, top[1], thick * 0.5), saddle, ragged=rough)
    brush.fur(
        capsule((chest[0] + 0.15, chest[1] - 0.2), thick * 0.72, (-0.1, 0.25), 0.6), animal.coat, ragged=rough
    )
    if "bib" in kind.marks:
        brush.fur(
            ellipse((chest[0] + thick * 0.55, chest[1]), thick * 0.4, thick * 0.6),
            animal.marked,
            ragged=rough,
        )
    for hip, way in ((chest, -1), (rump, 1)):
        _leg(brush, animal, (hip[0] + 0.05, hip[1] + 0.35), (hip[0] + way * stride * 0.6, ground), 0.95)
    _mane(brush, animal, dice)


def _lying(brush: Brush, animal: Individual, dice: Dice) -> None:
    kind = animal.kind
    length, thick = kind.body
    rough = _ragged(kind.fluff, dice)
    chest, rump = (-0.3, 1.0), (-0.4 - length * 0.8, 1.25 + dice.between(-0.1, 0.2))
    _tail(brush, animal, (rump[0] - thick * 0.5, rump[1] + thick * 0.4), dice, low=True)
    brush.fur(capsule(chest, thick * 0.8, rump, thick * 1.0), animal.coat, ragged=rough, dim=0.9)
    if "saddle" in kind.marks:
        saddle = plain(BLACK, dice)
        brush.fur(
            capsule((chest[0] - 0.4, 0.7), thick * 0.4, (rump[0], 0.75), thick * 0.45), saddle, ragged=rough
        )
    brush.fur(
        ellipse((rump[0] + 0.2, rump[1] + 0.3), thick * 0.7, thick * 0.65),
        animal.coat,
        ragged=rough,
        dim=0.82,
    )
    if "bib" in kind.marks:
        brush.fur(ellipse((0, 1.2), 0.6, 0.5), animal.marked, ragged=rough)
    for side in (-1, 1):
        _leg(brush, animal, (side * 0.4, 1.35), (side * 0.5 + 0.4, 1.35 + kind.legs[0] * 0.45), 0.95)
    _mane(brush, animal, dice)


def _leg(brush: Brush, animal: Individual, top: Point, foot: Point, dim: float) -> None:
    kind = animal.kind
    width = kind.legs[1]
    brush.fur(capsule(top, width * 1.35, foot, width * 0.9), animal.coat, dim=dim)
    ends = animal.marked if kind.marks & {"socks", "points"} else animal.coat
    if "socks" in kind.marks:
        shin = (foot[0] * 0.7 + top[0] * 0.3, foot[1] * 0.7 + top[1] * 0.3)
        brush.fur(capsule(shin, width, foot, width * 0.92), animal.marked, dim=dim)
    brush.fur(ellipse((foot[0] + width * 0.3, foot[1]), width * 1.35, width * 0.85), ends, dim=dim)


def _tail(brush: Brush, animal: Individual, root: Point, dice: Dice, *, low: bool) -> None:
    kind = animal.kind
    long = kind.tail_length
    x, y = root
    rise = -0.2 if low else dice.between(0.4, 1.0)
    side = 1 if low else -1
    if kind.tail in ("stub", "tuft") and long < 1:
        brush.fur(ellipse((x + side * long * 0.4, y), 0.2 + long * 0.4, 0.25), animal.coat)
        return
    ends: dict[str, list[Point]] = {
        "curled": [
            (x, y),
            (x + side * 0.7 * long, y - long),
            (x - side * 0.2, y - long),
            (x + side * 0.1, y - 0.5),
        ],
        "sickle": [(x, y), (x + side * 0.6 * long, y - 0.1), (x + side * 0.9 * long, y - long * abs(rise))],
    }
    free: list[Point] = [
        (x, y),
        (x + side * 0.6 * long, y + (0.2 if low else dice.between(-0.6, 0.8))),
        (x + side * 0.95 * long, y - long * rise),
    ]
    line = curve(ends.get(kind.tail, free), 9)
    start, end = {
        "thin": (0.17, 0.1),
        "bushy": (0.26, 0.42),
        "sickle": (0.22, 0.1),
        "curled": (0.24, 0.18),
    }.get(kind.tail, (0.13, 0.09))
    rough = _ragged(kind.fluff, dice)
    for index, (first, second) in enumerate(zip(line[::2], line[2::2], strict=False)):
        part = index / 4
        widths = start + (end - start) * part, start + (end - start) * (part + 0.25)
        dark = "points" in kind.marks and (index >= 2 or kind.name == "siamese")
        fur = animal.marked if dark else animal.coat
        brush.fur(capsule(tuple(first), widths[0], tuple(second), widths[1]), fur, ragged=rough, dim=0.86)
    if kind.tail == "tuft":
        brush.fur(ellipse(tuple(line[-1]), 0.32, 0.3), animal.coat, ragged=_ragged(1, dice), dim=0.75)


def _mane(brush: Brush, animal: Individual, dice: Dice) -> None:
    if animal.kind.mane is not None:
        fur = plain(dice.colour(animal.kind.mane, 0.06), dice, 0.6)
        brush.fur(ellipse((0, 0.15), 1.55, 1.6), fur, ragged=_ragged(1.3, dice))


# --- heads ------------------------------------------------------------------------------------------


def _head(brush: Brush, animal: Individual, dice: Dice) -> None:
    kind, turn = animal.kind, animal.turn
    width, height = kind.head
    rough = _ragged(kind.fluff, dice)
    behind = kind.ears not in ("floppy", "folded")
    if behind:
        _ears(brush, animal, dice)
    _horns(brush, animal)
    skull = capsule((0, -0.05), width * 0.94, (turn * 0.1, 0.38), kind.jaw * 0.82)
    skull[:, 1] *= height
    brush.fur(skull, animal.coat, ragged=rough)
    shift = turn * 0.42
    _face_marks(brush, animal, shift, dice)
    if not behind:
        _ears(brush, animal, dice)
    _eyes(brush, animal, shift, dice)
    _muzzle(brush, animal, shift, dice)


def _ears(brush: Brush, animal: Individual, dice: Dice) -> None:
    kind, turn = animal.kind, animal.turn
    width, height = kind.head
    long, wide = kind.ear
    fur = animal.marked if "points" in kind.marks else animal.coat
    inner = dice.colour(PINK, 0.1) if sum(animal.base) > 240 else dice.colour((120, 88, 84), 0.06)
    for side in (-1, 1):
        near = 1 - 0.3 * turn * side  # the ear that is turned away is seen from its edge
        angle = np.radians(kind.spread) * side * dice.around(1, 0.12)
        root = np.array([np.sin(angle) * width * 0.82 - turn * 0.16, -np.cos(angle) * height * 0.8])
        lean = angle * 0.75
        out = np.array([np.sin(lean), -np.cos(lean)])
        across = np.array([np.cos(lean), np.sin(lean)]) * wide * near
        length = long * dice.around(1, 0.08)
        if kind.ears in ("pointed", "tufted"):
            tip = root + out * length
            shape = np.array([root - across, root - across * 0.62 + out * length * 0.55, tip,
                              root + across * 0.62 + out * length * 0.55, root + across, root - out * 0.3])  # fmt: skip
            brush.fur(shape, fur)
            middle = root + out * length * 0.3
            brush.fill(middle + (shape - middle) * 0.6, inner)
            if kind.ears == "tufted":
                brush.line(np.array([tip - out * 0.14, tip + out * 0.16]), animal.second, 0.1)
        elif kind.ears in ("round", "sideways"):
            sideways = kind.ears == "sideways"
            middle = root + out * length * (0.75 if sideways else 0.5)
            shape = ellipse(
                tuple(middle), (length * 0.9 if sideways else wide) * near, wide if sideways else length * 0.8
            )
            brush.fur(shape, fur)
            brush.fill(middle + (shape - middle) * 0.6, inner)
        elif kind.ears == "long":
            tip = root + out * length
            shape = capsule(tuple(root), wide * near, tuple(tip), wide * 0.55 * near)
            brush.fur(shape, fur)
            middle = (root + tip) / 2
            brush.fill(middle + (shape - middle) * 0.6, inner)
        elif kind.ears == "folded":
            tip = root + np.array([side * wide * 0.7, length * 0.7])
            fold = root + out * 0.2
            brush.fur(np.array([root - across, fold, root + across, tip]), fur, dim=0.72)
        else:
            top, tip = root + np.array([side * 0.06, 0.05]), root + np.array([side * (0.3 + wide * 0.5), long])
            brush.fur(capsule(tuple(top), wide * 0.62, tuple(tip), wide * near), fur, dim=0.8)


def _horns(brush: Brush, animal: Individual) -> None:
    kind = animal.kind
    for side in (-1, 1):
        if kind.horns == "short":
            line = curve([(side * 0.5, -0.7), (side * 1.0, -0.9), (side * 0.9, -1.5)])
            brush.line(line, (222, 212, 186), 0.2)
        elif kind.horns == "antlers":
            line = curve([(side * 0.35, -0.75), (side * 1.2, -1.2), (side * 0.9, -2.2)])
            brush.line(line, CHOCOLATE, 0.14)
            for at in (4, 8):
                x, y = line[at]
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
        brush.fill(ellipse((x - wide * 0.3, y - radius * 0.35), radius * 0.2, radius * 0.2), (250, 250, 250))


def _muzzle(brush: Brush, animal: Individual, shift: float, dice: Dice) -> None:
    kind, turn = animal.kind, animal.turn
    out, wide = kind.muzzle
    base = (shift, 0.42)
    tip = (shift + turn * out * 1.15, 0.42 + out * 0.28 * (1 - abs(turn) * 0.6))
    fur = animal.marked if "muzzle" in kind.marks else animal.coat
    if kind.nose == "trunk":
        end = (tip[0] + turn * 0.4, tip[1] + (1.5 if kind.name == "elephant" else 0.12))
        fur = animal.coat if kind.name == "elephant" else plain(kind.nose_colour, dice)
        brush.fur(capsule((base[0], 0.2), 0.34, end, 0.2), fur)
        return
    if kind.nose == "beak":
        brush.fill(
            np.array([(shift - 0.16, 0.15), (shift + 0.16, 0.15), (shift + turn * 0.2, 0.6)]),
            kind.nose_colour,
        )
        return
    if kind.mane and kind.name == "sheep":
        fur = animal.marked
    mouth = tip[1] + wide * 0.42
    if dice.chance(kind.tongue):
        brush.fill(
            capsule((tip[0], mouth), wide * 0.32, (tip[0] + 0.05, mouth + wide * 0.8), wide * 0.3),
            (206, 92, 100),
        )
    jaw = ellipse((tip[0] * 0.7 + base[0] * 0.3, tip[1] + wide * 0.42), wide * 0.62, wide * 0.5)
    brush.fur(jaw, fur, dim=0.8)
    brush.fur(capsule(base, wide * 0.95, tip, wide * (0.86 if out < 0.3 else 0.74)), fur, dim=1.05)
    dark: Colour = (max(animal.base[0] - 90, 20), max(animal.base[1] - 90, 16), max(animal.base[2] - 90, 16))
    nose_y = tip[1] - wide * (0.35 if out < 0.3 else 0.28)
    if kind.nose == "disc":
        brush.fill(ellipse(tip, wide * 0.72, wide * 0.56), kind.nose_colour)
        for side in (-1, 1):
            brush.fill(ellipse((tip[0] + side * wide * 0.28, tip[1]), wide * 0.12, wide * 0.2), CHOCOLATE)
        return
    if kind.nose == "wide":
        brush.fill(ellipse((tip[0], tip[1]), wide * 0.85, wide * 0.5), kind.nose_colour)
        for side in (-1, 1):
            brush.fill(ellipse((tip[0] + side * wide * 0.45, tip[1] - 0.04), wide * 0.16, wide * 0.12), BLACK)
        return
    size = wide * (0.46 if kind.nose == "large" else 0.3)
    if kind.nose == "large":
        brush.fill(ellipse((tip[0], nose_y), size, size * 0.72), kind.nose_colour)
        brush.fill(
            ellipse((tip[0] - size * 0.3, nose_y - size * 0.3), size * 0.25, size * 0.14), (150, 150, 152)
        )
    else:
        triangle = np.array([(-size, -size * 0.6), (size, -size * 0.6), (0, size * 0.7)]) + (tip[0], nose_y)
        brush.fill(triangle, kind.nose_colour)
    brush.line(np.array([(tip[0], nose_y + size * 0.5), (tip[0], mouth - 0.06)]), dark, 0.05)
    for side in (-1, 1):
        end = (tip[0] + side * wide * 0.6, mouth - 0.04)
        brush.line(
            curve([(tip[0], mouth - 0.06), (tip[0] + side * wide * 0.3, mouth + 0.1), end], 6), dark, 0.05
        )
        if kind.whiskers:
            for slope in (-0.12, 0.05, 0.22):
                start = (tip[0] + side * wide * 0.5, tip[1] + slope * 0.4)
                brush.line(
                    np.array([start, (start[0] + side * 0.95, start[1] + slope)]), (236, 234, 228), 0.025
                )
