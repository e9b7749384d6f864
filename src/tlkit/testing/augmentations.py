"""The contract of an augmentation."""

from __future__ import annotations

import copy
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from PIL import Image

from tlkit.data.views import Pixels
from tlkit.parts.augmentation import Augmentation, split_fixed_steps
from tlkit.parts.preprocess import Preprocess
from tlkit.testing.images import IMAGE_SIZES, noise
from tlkit.testing.runner import CheckFailed, NotApplicable, PartUnderTest
from tlkit.utils.formatting import plural

PREPROCESS = Preprocess(size=32)
SEEDS = tuple(range(6))
#: How many threads draw at once, and how often each draws every seed.
THREADS, ROUNDS = 4, 8
#: The number of seeds that are tried until one gives a different image.
MAX_SEEDS = 200


@dataclass
class Subject:
    """What the checks of an augmentation are called with.

    Attributes:
        part: the augmentation's factory and options.
        augmentation: the augmentation, for images of `PREPROCESS.size` pixels.
    """

    part: PartUnderTest
    augmentation: Augmentation


def setup(part: PartUnderTest) -> Subject:
    """Makes the augmentation.

    Raises:
        TypeError: the factory does not return an augmentation.
    """
    augmentation = part.build(PREPROCESS)
    if not callable(augmentation) or not hasattr(augmentation, "set_random_seed"):
        raise TypeError(
            "the factory must return an albumentations.Compose, or another callable that takes image=… and "
            f"has a method set_random_seed; it returned {type(augmentation).__name__}"
        )
    return Subject(part, augmentation)


def pixels_are_uint8_of_the_expected_size(subject: Subject) -> None:
    """Images of any aspect ratio become uint8 ``(size, size, 3)``, `size` being ``preprocess.size``."""
    for size in (PREPROCESS.size, 45):
        augmentation = subject.part.build(Preprocess(size=size))
        for width, height in IMAGE_SIZES:
            pixels = _draw(augmentation, 1, _noise(width, height))
            if pixels.dtype != np.uint8 or pixels.shape != (size, size, 3):
                raise CheckFailed(
                    expected=f"uint8 pixels of shape {(size, size, 3)} from an image {width} pixels wide and "
                    f"{height} high",
                    got=f"{pixels.dtype} {pixels.shape}",
                    fix="return pixels from 0 to 255 as np.uint8, resized to preprocess.size; tlkit "
                    "normalises with mean and std itself",
                )


def the_input_is_not_modified(subject: Subject) -> None:
    """Neither the input image nor the output of the fixed steps is written to: both are used again."""
    fixed, random = split_fixed_steps(subject.augmentation)
    image = _noise()
    intermediate = image
    for step in fixed:
        intermediate = step(image=intermediate)["image"].copy()
    for augmentation, pixels, description in (
        (subject.augmentation, image, "the input image"),
        (random, intermediate, "the output of its fixed steps"),
    ):
        before = pixels.copy()
        for seed in SEEDS:
            _draw(augmentation, seed, pixels)
        if not np.array_equal(pixels, before):
            raise CheckFailed(
                expected=f"{description} to stay unchanged",
                got=f"{int((pixels != before).sum())} changed values",
                fix="work on a copy: image = image.copy()",
            )


def equal_seeds_give_equal_images(subject: Subject) -> None:
    """The same seed gives the same pixels, whatever was drawn before, and from a copy as well."""
    duplicate = copy.deepcopy(subject.augmentation)
    for seed in SEEDS:
        first = _draw(subject.augmentation, seed)
        _draw(subject.augmentation, seed + 100)
        for pixels, circumstance in (
            (_draw(subject.augmentation, seed), "again"),
            (_draw(duplicate, seed), "by a copy of the augmentation"),
        ):
            if not np.array_equal(first, pixels):
                raise CheckFailed(
                    expected=f"the same pixels when seed {seed} is drawn {circumstance}",
                    got=f"{int((first != pixels).any(-1).sum())} different pixels",
                    fix="draw from the albumentations transform's own generators, self.py_random and "
                    "self.random_generator, not from random or np.random",
                )


def threads_do_not_disturb_each_other(subject: Subject) -> None:
    """Several threads, each with a copy of its own as when images are read, draw what one thread draws."""
    expected = [_draw(subject.augmentation, seed) for seed in SEEDS]
    start = threading.Barrier(THREADS)

    def draw(_: int) -> bool:
        own = copy.deepcopy(subject.augmentation)
        start.wait()
        drawn = [_draw(own, seed) for _ in range(ROUNDS) for seed in SEEDS]
        return all(map(np.array_equal, drawn, expected * ROUNDS))

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)  # so that threads take turns between seeding and drawing
    try:
        with ThreadPoolExecutor(THREADS) as pool:
            equal = list(pool.map(draw, range(THREADS)))
    finally:
        sys.setswitchinterval(interval)
    if not all(equal):
        raise CheckFailed(
            expected=f"the same pixels in {THREADS} threads at once as in one",
            got=f"others in {equal.count(False)} of them",
            fix="draw from generators that belong to the object and that set_random_seed seeds, not from "
            "generators of the process, such as torch's global one, which all threads share",
        )


def different_seeds_give_different_images(subject: Subject) -> str:
    """Not all seeds give the same pixels; differences may be rare."""
    drawn = [_draw(subject.augmentation, seed) for seed in SEEDS]
    while len(drawn) < MAX_SEEDS and all(np.array_equal(drawn[0], pixels) for pixels in drawn[1:]):
        drawn.append(_draw(subject.augmentation, len(drawn)))
    different = len({pixels.tobytes() for pixels in drawn})
    if different > 1:
        return f"{different} different images from {len(drawn)} seeds"
    if np.array_equal(drawn[0], PREPROCESS(Image.fromarray(_noise()))):
        raise NotApplicable("with these options it returns the plain image; check it with others")
    raise CheckFailed(
        expected=f"different images from the seeds 0 to {len(drawn) - 1}",
        got="the same image from all of them",
        fix="draw in every call, from the albumentations transform's own generators, self.py_random and "
        "self.random_generator, which set_random_seed seeds",
    )


def fixed_steps_are_deterministic(subject: Subject) -> str:
    """Leading steps with the attribute ``fixed = True`` give the same pixels for every seed."""
    expected: list[Pixels] = []
    for seed in SEEDS:
        # the whole augmentation is seeded, since its steps share its generators
        subject.augmentation.set_random_seed(seed)
        fixed, _ = split_fixed_steps(subject.augmentation)
        if not fixed:
            raise NotApplicable("its first step does not declare fixed = True")
        outputs = [_noise()]
        for step in fixed:
            outputs.append(step(image=outputs[-1])["image"])
        expected = expected or outputs
        for step, first, pixels in zip(fixed, expected[1:], outputs[1:], strict=True):
            if not np.array_equal(first, pixels):
                raise CheckFailed(
                    expected=f"the same pixels from {type(step).__name__}, which declares fixed = True",
                    got=f"different pixels with the seeds {SEEDS[0]} and {seed}",
                    fix="remove fixed = True: only the output of a deterministic step may be cached",
                )
    return f"{plural(len(fixed), 'fixed step')}, run once per image"


def _noise(width: int = IMAGE_SIZES[0][0], height: int = IMAGE_SIZES[0][1]) -> Pixels:
    return np.asarray(noise(width, height)).copy()


def _draw(augmentation: Augmentation, seed: int, image: Pixels | None = None) -> Pixels:
    """Returns what the augmentation makes of `image`, or of noise, with this seed."""
    augmentation.set_random_seed(seed)
    pixels: Pixels = augmentation(image=_noise() if image is None else image)["image"]
    return pixels


CHECKS = (
    pixels_are_uint8_of_the_expected_size,
    the_input_is_not_modified,
    equal_seeds_give_equal_images,
    threads_do_not_disturb_each_other,
    different_seeds_give_different_images,
    fixed_steps_are_deterministic,
)
