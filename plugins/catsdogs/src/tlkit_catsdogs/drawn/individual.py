"""An individual animal: its kind's proportions and colours, varied at random."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from tlkit_catsdogs.drawn.brush import Brush, Dice, Pixels, Points
from tlkit_catsdogs.drawn.coats import coat, plain
from tlkit_catsdogs.drawn.kinds import Colour, Kind


@dataclass(frozen=True)
class Individual:
    """One animal's proportions, colours and fur.

    Attributes:
        kind: its kind, with this individual's proportions.
        base: colour of the coat.
        second: colour of pattern and marks.
        coat: fur with its pattern.
        marked: fur of the second colour.
        turn: rotation of the head, -1 to 1; the animal faces right at 1.
    """

    kind: Kind
    base: Colour
    second: Colour
    coat: Pixels
    marked: Pixels
    turn: float

    @classmethod
    def of(
        cls, kind: Kind, brush: Brush, dice: Dice, variation: float, turn: tuple[float, float]
    ) -> Individual:
        """Makes a random individual of a kind, with its head turned by an amount within `turn`."""
        kind = _vary(kind, dice, variation)
        base = dice.colour(dice.choice(kind.coats), variation * 0.6)
        second = dice.colour(dice.choice(kind.second), variation * 0.3)
        fur = coat(kind, base, second, brush, dice)
        return cls(kind, base, second, fur, plain(second, dice), dice.between(*turn))


def ragged(fluff: float, dice: Dice) -> Callable[[Points], Points] | None:
    """Returns a function that makes an outline as ragged as the fur is long; None for short fur."""
    if fluff < 0.1:
        return None

    def with_fur(points: Points) -> Points:
        dense = np.repeat(points, 2, axis=0)
        dense[1::2] = (points + np.roll(points, -1, axis=0)) / 2
        middle: Points = dense.mean(axis=0)
        jitter = np.array([dice.random() for _ in range(len(dense))])[:, None]
        return middle + (dense - middle) * (1 + 0.13 * fluff * (jitter - 0.3))

    return with_fur


def _vary(kind: Kind, dice: Dice, by: float) -> Kind:
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
