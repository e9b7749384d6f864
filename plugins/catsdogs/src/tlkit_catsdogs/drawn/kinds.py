"""The kinds of animals: their proportions, ears, muzzles, eyes and coats, as a table.

Lengths are in units of the head's radius. Cats and dogs share builds, sizes and most colours, so they differ
in the features that real ones differ in: ears, muzzle, nose, eyes, whiskers, tail.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

Colour = tuple[int, int, int]
Ears = Literal["pointed", "round", "floppy", "folded", "long", "sideways", "tufted"]
Pattern = Literal["plain", "tabby", "spots", "patches", "brindle", "ticked"]
Tail = Literal["thin", "bushy", "curled", "sickle", "stub", "tuft"]
Nose = Literal["small", "large", "disc", "beak", "trunk", "wide"]
Pupil = Literal["slit", "round", "bar"]

BLACK, WHITE, GREY = (38, 35, 36), (240, 236, 228), (135, 135, 138)
CREAM, TAN, GOLD = (228, 206, 168), (190, 148, 98), (212, 160, 90)
GINGER, RED, BROWN = (214, 128, 58), (176, 92, 48), (112, 76, 50)
CHOCOLATE, PINK, SLATE = (74, 52, 42), (224, 172, 156), (92, 100, 112)
YELLOW_EYES, GREEN_EYES, BLUE_EYES = (222, 190, 62), (140, 178, 84), (120, 176, 220)
BROWN_EYES, DARK_EYES, AMBER_EYES = (92, 56, 30), (30, 24, 22), (190, 120, 40)


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of animal.

    Attributes:
        name: its name, which is its class in the studio.
        coats: base colours, one of which an individual gets.
        pattern: drawn over the base in `second`.
        second: colours of the pattern and of the marks.
        marks: parts in the second colour: "muzzle", "bib", "points", "saddle", "mask", "eye-patch",
            "blaze", "socks".
        head: half width and half height of the skull.
        jaw: half width of the cheeks.
        ears: their shape.
        ear: length and half width.
        spread: angle of the ears from upright, in degrees.
        muzzle: how far it protrudes, and its half width.
        nose: its shape.
        nose_colour: its colour.
        eye: radius, distance from the middle, height above the middle.
        eyes: colours of the iris.
        pupil: its shape.
        whiskers: whether it has long whiskers.
        fluff: how ragged its outline is, 0 to 1.
        body: length, half thickness.
        legs: length, half thickness.
        neck: length.
        tail: its shape.
        tail_length: length of the tail.
        horns: "short", "antlers" or "".
        mane: a ring of hair around the head, in this colour, or None.
        tongue: how often it hangs out, 0 to 1.
    """

    name: str
    coats: tuple[Colour, ...]
    pattern: Pattern = "plain"
    second: tuple[Colour, ...] = (WHITE,)
    marks: frozenset[str] = field(default_factory=frozenset)
    head: tuple[float, float] = (1.0, 0.9)
    jaw: float = 0.8
    ears: Ears = "pointed"
    ear: tuple[float, float] = (0.75, 0.4)
    spread: float = 38
    muzzle: tuple[float, float] = (0.3, 0.4)
    nose: Nose = "small"
    nose_colour: Colour = BLACK
    eye: tuple[float, float, float] = (0.2, 0.42, 0.08)
    eyes: tuple[Colour, ...] = (BROWN_EYES,)
    pupil: Pupil = "round"
    whiskers: bool = False
    fluff: float = 0.15
    body: tuple[float, float] = (2.4, 0.95)
    legs: tuple[float, float] = (1.6, 0.24)
    neck: float = 0.5
    tail: Tail = "thin"
    tail_length: float = 2.0
    horns: Literal["short", "antlers", ""] = ""
    mane: Colour | None = None
    tongue: float = 0.0


CAT = Kind(
    "cat",
    coats=(GREY, GINGER, BLACK, BROWN),
    head=(1.0, 0.86),
    jaw=0.82,
    ears="pointed",
    ear=(0.78, 0.42),
    spread=36,
    muzzle=(0.12, 0.36),
    nose="small",
    nose_colour=(206, 130, 122),
    eye=(0.23, 0.43, 0.06),
    eyes=(YELLOW_EYES, GREEN_EYES, AMBER_EYES),
    pupil="slit",
    whiskers=True,
    body=(2.3, 0.85),
    legs=(1.45, 0.21),
    neck=0.3,
    tail="thin",
    tail_length=2.3,
)
DOG = Kind(
    "dog",
    coats=(TAN, GOLD, BLACK, BROWN),
    head=(0.94, 0.92),
    jaw=0.66,
    ears="floppy",
    ear=(1.0, 0.32),
    spread=62,
    muzzle=(0.62, 0.4),
    nose="large",
    eye=(0.16, 0.38, 0.14),
    eyes=(BROWN_EYES, DARK_EYES, AMBER_EYES),
    body=(2.6, 0.95),
    legs=(1.75, 0.25),
    neck=0.55,
    tail="sickle",
    tail_length=1.6,
    tongue=0.35,
)


def _cat(name: str, **changes: object) -> Kind:
    return replace(CAT, name=name, **changes)  # type: ignore[arg-type]


def _dog(name: str, **changes: object) -> Kind:
    return replace(DOG, name=name, **changes)  # type: ignore[arg-type]


def _marks(*names: str) -> frozenset[str]:
    return frozenset(names)


# fmt: off
#: Kinds of cat that the studio shows, then two that only the street does.
STUDIO_CATS = (
    _cat("tabby", coats=((150, 128, 100), GREY, TAN), pattern="tabby", second=((66, 54, 44), BROWN)),
    _cat("siamese", coats=(CREAM, WHITE), second=(CHOCOLATE, SLATE), marks=_marks("points", "mask"),
         head=(0.9, 0.92), jaw=0.62, ear=(0.95, 0.5), spread=46, eyes=(BLUE_EYES,), body=(2.5, 0.7)),
    _cat("persian", coats=(WHITE, CREAM, GREY, GINGER), head=(1.12, 0.92), jaw=1.0, ear=(0.48, 0.34),
         spread=48, muzzle=(0.05, 0.3), fluff=0.8, body=(2.1, 1.1), legs=(1.0, 0.28), tail="bushy",
         eyes=(AMBER_EYES, BLUE_EYES)),
    _cat("tuxedo", coats=(BLACK, SLATE), marks=_marks("muzzle", "bib", "socks"),
         eyes=(YELLOW_EYES, GREEN_EYES)),
    _cat("ginger", coats=(GINGER, GOLD), pattern="tabby", second=(RED, (188, 104, 44)),
         marks=_marks("muzzle", "bib"), head=(1.08, 0.88), jaw=0.95),
)
STREET_CATS = (
    _cat("calico", coats=(WHITE,), pattern="patches", second=(GINGER, BLACK), eyes=(GREEN_EYES, AMBER_EYES)),
    _cat("forest", coats=(BROWN, GREY, SLATE), pattern="tabby", second=(CHOCOLATE, BLACK), fluff=0.9,
         marks=_marks("bib", "muzzle"), ears="tufted", ear=(0.92, 0.4), muzzle=(0.22, 0.4), body=(2.7, 1.05),
         tail="bushy", tail_length=2.4),
    _cat("sphynx", coats=(PINK, (206, 170, 150), SLATE), head=(0.86, 0.92), jaw=0.6, ear=(1.05, 0.58),
         spread=50,
         fluff=0.0, whiskers=False, body=(2.4, 0.7), eyes=(BLUE_EYES, GREEN_EYES), tail_length=2.4),
)
#: Kinds of dog that the studio shows, then four that only the street does.
STUDIO_DOGS = (
    _dog("retriever", coats=(GOLD, CREAM, CHOCOLATE), fluff=0.4, tail="bushy"),
    _dog("shepherd", coats=(TAN, GOLD), second=(BLACK,), marks=_marks("saddle", "mask"), ears="pointed",
         ear=(0.95, 0.36), spread=26, muzzle=(0.78, 0.36), tail="bushy", eyes=(AMBER_EYES, BROWN_EYES)),
    _dog("husky", coats=(GREY, SLATE, BLACK), marks=_marks("muzzle", "bib", "socks", "eye-patch"),
         ears="pointed",
         ear=(0.7, 0.34), spread=24, muzzle=(0.55, 0.38), fluff=0.45, tail="curled",
         eyes=(BLUE_EYES, BROWN_EYES)),
    _dog("beagle", coats=(TAN, GINGER), second=(WHITE,),
         marks=_marks("muzzle", "bib", "blaze", "socks", "saddle"),
         ear=(1.25, 0.38), spread=74, legs=(1.3, 0.24)),
    _dog("pug", coats=(CREAM, TAN), second=(BLACK,), marks=_marks("mask"), head=(1.04, 0.94), jaw=0.95,
         ears="folded", ear=(0.72, 0.44), spread=46, muzzle=(0.2, 0.5), eye=(0.22, 0.46, 0.06),
         eyes=(DARK_EYES,),
         body=(2.1, 1.05), legs=(1.05, 0.26), tail="curled", tail_length=0.9),
    _dog("dalmatian", coats=(WHITE,), pattern="spots", second=(BLACK, CHOCOLATE), ear=(0.95, 0.34),
         tail="thin", fluff=0.05, legs=(2.0, 0.24)),
    _dog("poodle", coats=(WHITE, BLACK, GREY, CHOCOLATE), fluff=1.0, ear=(1.15, 0.46), spread=80,
         muzzle=(0.7, 0.26), tail="tuft", legs=(1.9, 0.26), eyes=(DARK_EYES,)),
)
STREET_DOGS = (
    _dog("chihuahua", coats=(TAN, CREAM, BLACK), head=(0.98, 0.96), jaw=0.62, ears="pointed", ear=(0.95, 0.5),
         spread=54, muzzle=(0.36, 0.28), eye=(0.21, 0.44, 0.06), eyes=(DARK_EYES,), body=(2.0, 0.75),
         legs=(1.3, 0.17), tail="sickle"),
    _dog("bulldog", coats=(WHITE, TAN, BROWN), pattern="brindle", second=(BROWN, CHOCOLATE),
         head=(1.16, 0.92),
         jaw=1.12, ears="folded", ear=(0.66, 0.4), spread=52, muzzle=(0.26, 0.62), body=(2.2, 1.2),
         legs=(1.1, 0.34), tail="stub", tail_length=0.4),
    _dog("dachshund", coats=(RED, CHOCOLATE, BLACK), second=(TAN,), marks=_marks("muzzle", "socks"),
         head=(0.84, 0.86), jaw=0.56, ear=(1.1, 0.34), muzzle=(0.85, 0.3), body=(3.6, 0.8), legs=(0.7, 0.22),
         tail="thin", fluff=0.05),
    _dog("schnauzer", coats=(GREY, SLATE, BLACK), second=((208, 206, 200),),
         marks=_marks("muzzle", "eye-patch"),
         ears="folded", ear=(0.75, 0.4), spread=38, muzzle=(0.6, 0.48), fluff=0.6, tail="stub",
         tail_length=0.7),
)
OTHERS = (
    Kind("fox", coats=(GINGER, RED), marks=_marks("muzzle", "bib"), ear=(0.95, 0.42), spread=32, jaw=0.9,
         muzzle=(0.75, 0.26), eyes=(AMBER_EYES,), pupil="slit", fluff=0.5, tail="bushy", tail_length=2.6),
    Kind("bear", coats=(BROWN, CHOCOLATE, BLACK), second=(TAN,), marks=_marks("muzzle"), ears="round",
         ear=(0.38, 0.34), spread=50, muzzle=(0.55, 0.44), nose="large", eye=(0.11, 0.36, 0.14),
         eyes=(DARK_EYES,),
         fluff=0.6, body=(2.9, 1.45), legs=(1.5, 0.44), tail="stub", tail_length=0.3),
    Kind("panda", coats=(WHITE,), second=(BLACK,), marks=_marks("eye-patch", "points", "socks"), ears="round",
         ear=(0.4, 0.36), spread=52, head=(1.1, 0.96), muzzle=(0.3, 0.42), nose="large",
         eye=(0.12, 0.42, 0.04),
         eyes=(DARK_EYES,), fluff=0.5, body=(2.6, 1.45), legs=(1.2, 0.46), tail="stub", tail_length=0.3),
    Kind("rabbit", coats=(GREY, BROWN, WHITE, TAN), ears="long", ear=(1.9, 0.3), spread=14, head=(0.84, 0.9),
         jaw=0.8, muzzle=(0.15, 0.36), nose_colour=PINK, eye=(0.19, 0.52, 0.14), eyes=(DARK_EYES, BROWN_EYES),
         whiskers=True, fluff=0.4, body=(2.0, 1.1), legs=(0.8, 0.26), tail="tuft", tail_length=0.5),
    Kind("mouse", coats=(GREY, BROWN, WHITE), ears="round", ear=(0.8, 0.74), spread=46, head=(0.86, 0.84),
         jaw=0.6,
         muzzle=(0.55, 0.22), nose_colour=PINK, eye=(0.14, 0.36, 0.1), eyes=(DARK_EYES,), whiskers=True,
         body=(2.0, 1.0), legs=(0.6, 0.16), tail="thin", tail_length=3.0),
    Kind("pig", coats=(PINK, (214, 150, 140)), ears="folded", ear=(0.6, 0.4), spread=44, muzzle=(0.5, 0.42),
         nose="disc", nose_colour=(206, 128, 126), eye=(0.12, 0.42, 0.16), eyes=(DARK_EYES, BLUE_EYES),
         fluff=0.0,
         body=(2.9, 1.4), legs=(1.0, 0.3), tail="curled", tail_length=0.6),
    Kind("cow", coats=(WHITE, TAN), pattern="patches", second=(BLACK, CHOCOLATE), ears="sideways",
         ear=(0.7, 0.3),
         spread=84, head=(0.8, 1.0), muzzle=(0.5, 0.52), nose="wide", nose_colour=PINK, eye=(0.14, 0.5, 0.2),
         eyes=(DARK_EYES,), body=(3.4, 1.35), legs=(1.9, 0.3), horns="short", tail="tuft", fluff=0.05),
    Kind("horse", coats=(BROWN, CHOCOLATE, TAN, WHITE), second=(BLACK, CHOCOLATE), marks=_marks("blaze"),
         ear=(0.6, 0.22), spread=20, head=(0.68, 1.0), jaw=0.56, muzzle=(0.95, 0.42), nose="wide",
         nose_colour=SLATE, eye=(0.13, 0.5, 0.3), eyes=(DARK_EYES,), pupil="bar", body=(3.2, 1.1),
         legs=(2.8, 0.26), neck=1.5, tail="bushy", tail_length=2.0, fluff=0.05),
    Kind("sheep", coats=(WHITE, CREAM), second=(BLACK, TAN), marks=_marks("mask", "socks"), ears="sideways",
         ear=(0.6, 0.24), spread=88, head=(0.74, 0.9), muzzle=(0.5, 0.36), eye=(0.12, 0.42, 0.16),
         eyes=(AMBER_EYES,), pupil="bar", fluff=1.0, body=(2.7, 1.45), legs=(1.2, 0.2), tail="stub",
         tail_length=0.4, mane=(232, 226, 212)),
    Kind("deer", coats=(TAN, BROWN, RED), pattern="spots", second=(CREAM,), ears="sideways", ear=(0.85, 0.34),
         spread=64, head=(0.72, 0.92), jaw=0.52, muzzle=(0.7, 0.28), nose="large", eye=(0.16, 0.48, 0.14),
         eyes=(DARK_EYES,), body=(2.6, 0.9), legs=(2.5, 0.16), neck=1.2, horns="antlers", tail="stub",
         tail_length=0.4, fluff=0.05),
    Kind("lion", coats=(GOLD, TAN), ears="round", ear=(0.4, 0.34), spread=46, muzzle=(0.4, 0.5), nose="large",
         nose_colour=CHOCOLATE, eye=(0.15, 0.4, 0.12), eyes=(AMBER_EYES,), whiskers=True, mane=BROWN,
         body=(3.0, 1.05), legs=(1.7, 0.3), tail="tuft", tail_length=2.2),
    Kind("elephant", coats=(GREY, SLATE), ears="sideways", ear=(1.15, 1.0), spread=80, head=(0.95, 1.05),
         muzzle=(0.5, 0.3), nose="trunk", eye=(0.1, 0.5, 0.1), eyes=(DARK_EYES,), body=(3.2, 1.7),
         legs=(1.7, 0.48), fluff=0.0, tail="thin", tail_length=1.0),
    Kind("monkey", coats=(BROWN, CHOCOLATE), second=(CREAM, TAN), marks=_marks("muzzle", "eye-patch"),
         ears="round",
         ear=(0.46, 0.42), spread=86, muzzle=(0.3, 0.52), nose="small", nose_colour=CHOCOLATE,
         eye=(0.15, 0.28, 0.12), eyes=(BROWN_EYES,), body=(2.0, 0.8), legs=(1.6, 0.22), tail="curled",
         tail_length=2.6, fluff=0.3),
    Kind("koala", coats=(GREY,), ears="round", ear=(0.62, 0.58), spread=62, head=(1.05, 0.92),
         muzzle=(0.2, 0.3),
         nose="trunk", nose_colour=BLACK, eye=(0.11, 0.46, 0.06), eyes=(DARK_EYES,), marks=_marks("bib"),
         fluff=0.7, body=(2.0, 1.15), legs=(1.0, 0.3), tail="stub", tail_length=0.1),
    Kind("raccoon", coats=(GREY, BROWN), second=(BLACK,), marks=_marks("mask", "points"), ear=(0.5, 0.34),
         ears="round", spread=44, muzzle=(0.6, 0.28), nose="large", eye=(0.14, 0.4, 0.08), eyes=(DARK_EYES,),
         whiskers=True, fluff=0.6, body=(2.4, 1.1), legs=(1.1, 0.24), tail="bushy", tail_length=2.2),
    Kind("owl", coats=(BROWN, TAN, WHITE), pattern="ticked", second=(CHOCOLATE, GREY), ears="tufted",
         ear=(0.45, 0.24), spread=46, head=(1.1, 0.95), muzzle=(0.08, 0.2), nose="beak", nose_colour=GOLD,
         eye=(0.34, 0.42, 0.1), eyes=(YELLOW_EYES, AMBER_EYES), fluff=0.5, body=(1.7, 1.15), legs=(0.4, 0.14),
         tail="stub", tail_length=0.8),
)

# fmt: on
CATS = (*STUDIO_CATS, *STREET_CATS)
DOGS = (*STUDIO_DOGS, *STREET_DOGS)
#: The studio's classes, cats first, then dogs; the phase `zero-shot` groups them by index.
STUDIO = (*STUDIO_CATS, *STUDIO_DOGS, *OTHERS)
