"""The contract of an augmentation."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tlkit.data.views import split_fixed_steps
from tlkit.parts.preprocess import Preprocess
from tlkit.testing.images import PROPORTIONS, noise
from tlkit.testing.runner import CheckFailed, NotApplicable, PartUnderTest

Pixels = NDArray[Any]
PREPROCESS = Preprocess(size=32)
SEEDS = tuple(range(6))
#: Seeds that are tried until one draws something else.
MANY = 200


@dataclass
class Subject:
    """An augmentation under test.

    Attributes:
        bench: how it was made.
        transform: it.
    """

    bench: PartUnderTest
    transform: Any

    def draw(self, seed: int, size: tuple[int, int] = PROPORTIONS[0], transform: Any = None) -> Pixels:
        """One draw for an image of that width and height."""
        chosen = self.transform if transform is None else transform
        chosen.set_random_seed(seed)
        pixels: Pixels = chosen(image=np.asarray(noise(*size)).copy())["image"]
        return pixels


def setup(bench: PartUnderTest) -> Subject:
    """Makes the augmentation for images of 32 pixels."""
    transform = bench.part(PREPROCESS)
    if not callable(transform) or not hasattr(transform, "set_random_seed"):
        raise TypeError(
            f"the factory must return an albumentations.Compose, which is called with image=… and has "
            f"set_random_seed; it returned {type(transform).__name__}"
        )
    return Subject(bench, transform)


def pixels_are_uint8_of_the_right_size(subject: Subject) -> None:
    """Images of any proportions become uint8 ``(size, size, 3)``, `size` being the preprocessing's."""
    for size in (PREPROCESS.size, 45):
        transform = subject.bench.part(Preprocess(size=size))
        for width, height in PROPORTIONS:
            pixels = subject.draw(1, (width, height), transform)
            if pixels.dtype != np.uint8 or pixels.shape != (size, size, 3):
                raise CheckFailed(
                    expected=f"uint8 pixels {(size, size, 3)} from an image {width} wide and {height} high",
                    came=f"{pixels.dtype} {pixels.shape}",
                    mend="end with pixels from 0 to 255 as np.uint8, of preprocess.size; mean and std are "
                    "tlkit's to apply",
                )


def the_image_itself_stays(subject: Subject) -> None:
    """The pixels it is given are not written to, nor what its fixed steps made: they are used again."""
    steps, varied = split_fixed_steps(subject.transform)
    pixels = np.asarray(noise(*PROPORTIONS[0])).copy()
    beginning = pixels
    for step in steps:
        beginning = step(image=beginning)["image"].copy()
    for transform, given, what in (
        (subject.transform, pixels, "the image it is given"),
        (varied, beginning, "what its fixed steps made"),
    ):
        before = given.copy()
        for seed in SEEDS:
            transform.set_random_seed(seed)
            transform(image=given)
        if not np.array_equal(given, before):
            raise CheckFailed(
                expected=f"{what} to stay as it is",
                came=f"{int((given != before).sum())} changed values in it",
                mend="work on a copy: image = image.copy()",
            )


def one_seed_gives_one_image(subject: Subject) -> None:
    """The same seed draws the same, whatever was drawn before, and from a copy too."""
    twin = copy.deepcopy(subject.transform)
    for seed in SEEDS:
        first = subject.draw(seed)
        subject.draw(seed + 100)
        for other, where in (
            (subject.draw(seed), "again"),
            (subject.draw(seed, transform=twin), "by a copy"),
        ):
            if not np.array_equal(first, other):
                raise CheckFailed(
                    expected=f"the same pixels when seed {seed} is drawn {where}",
                    came=f"{int((first != other).any(-1).sum())} different pixels",
                    mend="draw from albumentations' own generators, self.py_random and self.random_generator "
                    "of a transform, never from random or np.random",
                )


def other_seeds_give_other_images(subject: Subject) -> str:
    """Many seeds do not all draw the same; a change may be rare."""
    drawn = [subject.draw(seed) for seed in SEEDS]
    while len(drawn) < MANY and all(np.array_equal(drawn[0], pixels) for pixels in drawn[1:]):
        drawn.append(subject.draw(len(drawn)))
    different = len({pixels.tobytes() for pixels in drawn})
    if different > 1:
        return f"{different} different images from {len(drawn)} seeds"
    if np.array_equal(drawn[0], PREPROCESS(Image.fromarray(np.asarray(noise(*PROPORTIONS[0]))))):
        raise NotApplicable("with these options it gives the plain image; others may be tried")
    raise CheckFailed(
        expected=f"seeds 0 to {len(drawn) - 1} to draw different images",
        came="the same one for all",
        mend="draw anew in every call, from albumentations' own generators: self.py_random and "
        "self.random_generator of a transform, which set_random_seed sets",
    )


def fixed_steps_draw_nothing(subject: Subject) -> str:
    """Steps at the beginning that call themselves fixed do the same whatever the seed."""
    image = np.asarray(noise(*PROPORTIONS[0]))
    first: list[Pixels] = []
    for seed in SEEDS:
        # seeded as a whole, since steps draw from the transform's generators
        subject.transform.set_random_seed(seed)
        steps, _ = split_fixed_steps(subject.transform)
        if not steps:
            raise NotApplicable("none of its first steps says fixed = True")
        seen = [image]
        for step in steps:
            seen.append(step(image=seen[-1])["image"])
        first = first or seen
        for step, one, other in zip(steps, first[1:], seen[1:], strict=True):
            if not np.array_equal(one, other):
                raise CheckFailed(
                    expected=f"the same pixels from {type(step).__name__}, which says fixed = True",
                    came=f"others with seed {seed} than with seed {SEEDS[0]}",
                    mend="take fixed = True away: only what draws nothing may be remembered",
                )
    return f"{len(steps)} of its steps are done once per image"


CHECKS = (
    pixels_are_uint8_of_the_right_size,
    the_image_itself_stays,
    one_seed_gives_one_image,
    other_seeds_give_other_images,
    fixed_steps_draw_nothing,
)
