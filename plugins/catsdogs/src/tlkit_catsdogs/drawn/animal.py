"""One animal in a pose: its body, then its head in front of it."""

from __future__ import annotations

from typing import Literal

from tlkit_catsdogs.drawn.brush import Brush, Dice, Point, capsule, curve, ellipse
from tlkit_catsdogs.drawn.coats import plain
from tlkit_catsdogs.drawn.head import draw_head
from tlkit_catsdogs.drawn.individual import Individual, ragged
from tlkit_catsdogs.drawn.kinds import BLACK, Kind

Pose = Literal["portrait", "sitting", "standing", "lying"]


def draw_animal(brush: Brush, kind: Kind, pose: Pose, dice: Dice, variation: float) -> None:
    """Draws an animal with the middle of its head at the brush's origin.

    Args:
        brush: sets its position, size and rotation.
        kind: the kind of animal.
        pose: its pose; a standing animal faces right.
        dice: draws its individual proportions and colours.
        variation: how far these deviate from the kind's, about 0.1 to 0.2.
    """
    turn = (0.1, 0.9) if pose == "standing" else (-0.55, 0.55)
    animal = Individual.of(kind, brush, dice, variation, turn)
    bodies = {"portrait": _portrait, "sitting": _sitting, "standing": _standing, "lying": _lying}
    bodies[pose](brush, animal, dice)
    draw_head(brush, animal, dice)


def _portrait(brush: Brush, animal: Individual, dice: Dice) -> None:
    kind = animal.kind
    _mane(brush, animal, dice)
    lean = dice.between(-0.4, 0.4)
    thick = kind.body[1]
    rough = ragged(kind.fluff, dice)
    shoulders = (lean, 1.6 + kind.neck + thick)
    brush.fur(capsule((0, 0.5), 0.72, shoulders, thick * 1.5), animal.coat, ragged=rough, dim=0.92)
    if "bib" in kind.marks:
        brush.fur(capsule((0, 0.8), 0.4, shoulders, thick * 0.7), animal.marked, ragged=rough)


def _sitting(brush: Brush, animal: Individual, dice: Dice) -> None:
    kind = animal.kind
    length, thick = kind.body
    rough = ragged(kind.fluff, dice)
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
    rough = ragged(kind.fluff, dice)
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
    rough = ragged(kind.fluff, dice)
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
    rough = ragged(kind.fluff, dice)
    for index, (first, second) in enumerate(zip(line[::2], line[2::2], strict=False)):
        part = index / 4
        widths = start + (end - start) * part, start + (end - start) * (part + 0.25)
        dark = "points" in kind.marks and (index >= 2 or kind.name == "siamese")
        fur = animal.marked if dark else animal.coat
        brush.fur(capsule(tuple(first), widths[0], tuple(second), widths[1]), fur, ragged=rough, dim=0.86)
    if kind.tail == "tuft":
        brush.fur(ellipse(tuple(line[-1]), 0.32, 0.3), animal.coat, ragged=ragged(1, dice), dim=0.75)


def _mane(brush: Brush, animal: Individual, dice: Dice) -> None:
    if animal.kind.mane is not None:
        fur = plain(dice.colour(animal.kind.mane, 0.06), dice, 0.6)
        brush.fur(ellipse((0, 0.15), 1.55, 1.6), fur, ragged=ragged(1.3, dice))
