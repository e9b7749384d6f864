"""The two settings of the drawn world, and its images: image N of a seed is always the same."""

from __future__ import annotations

from dataclasses import dataclass

from tlkit_catsdogs.drawn.animal import Pose, draw_animal
from tlkit_catsdogs.drawn.brush import CANVAS, Brush, Dice, Pixels
from tlkit_catsdogs.drawn.kinds import CATS, DOGS, STUDIO, Kind
from tlkit_catsdogs.drawn.scene import Conditions, background, occlude, photograph, scatter

POSES: tuple[Pose, ...] = ("portrait", "sitting", "standing", "lying")


@dataclass(frozen=True)
class Setting:
    """One of the two settings.

    Attributes:
        classes: class names.
        kinds: for each class, the kinds of animal that belong to it.
        conditions: how hard its images are.
    """

    classes: tuple[str, ...]
    kinds: tuple[tuple[Kind, ...], ...]
    conditions: Conditions


SETTINGS = {
    "studio": Setting(
        classes=tuple(kind.name for kind in STUDIO),
        kinds=tuple((kind,) for kind in STUDIO),
        conditions=Conditions(
            clutter=4, occlusion=0.15, size=(0.11, 0.3), variation=0.1, light=0.35, noise=0.35, blur=0.9,
            quality=(50, 95), company=0.0,
        ),
    ),
    "street": Setting(
        classes=("cat", "dog"),
        kinds=(CATS, DOGS),
        conditions=Conditions(
            clutter=9, occlusion=0.4, size=(0.08, 0.27), variation=0.16, light=0.6, noise=0.7, blur=1.4,
            quality=(30, 90), company=0.06,
        ),
    ),
}  # fmt: skip


def draw(setting: str, seed: int, number: int) -> bytes:
    """Draws image `number` of a seed as a JPEG file; its class is `number` modulo the number of classes.

    Args:
        setting: "studio" or "street".
        seed: of the world.
        number: from 0.
    """
    world = SETTINGS[setting]
    conditions = world.conditions
    dice = Dice(f"{setting}/{seed}/{number}")
    kinds = world.kinds[number % len(world.classes)]
    canvas = background(dice)
    scatter(canvas, int(dice.between(0, conditions.clutter + 1)), dice)
    if dice.chance(conditions.company):
        _draw_one(canvas, dice.choice(kinds), dice, conditions, scale=0.6)
    _draw_one(canvas, dice.choice(kinds), dice, conditions, scale=1.0)
    return photograph(canvas, conditions, dice)


def _draw_one(canvas: Pixels, kind: Kind, dice: Dice, conditions: Conditions, *, scale: float) -> None:
    pose = dice.choice(POSES)
    low, high = conditions.size
    radius = CANVAS * dice.between(low, high) * scale
    if pose == "portrait":
        radius *= 1.25
    # bodies are larger than heads: most of a standing animal should be in the image
    if pose == "standing":
        radius *= 0.75
    range_x = {"standing": (0.45, 0.8), "lying": (0.4, 0.75)}.get(pose, (0.25, 0.75))
    x, y = dice.between(*range_x), dice.between(0.22, 0.5 if pose != "portrait" else 0.7)
    flip = dice.chance(0.5)
    head = ((1 - x if flip else x) * CANVAS, y * CANVAS)
    brush = Brush(canvas, head, radius, dice.between(-0.25, 0.25), flip)
    draw_animal(brush, kind, pose, dice, conditions.variation)
    if dice.chance(conditions.occlusion):
        occlude(canvas, head, radius, dice)
