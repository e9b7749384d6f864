"""The built-in augmentations: from a decoded image to `size` by `size` pixels, drawn from a seed."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from networks import REGISTRY
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import affine_transform

from tlkit.builtin.augmentation_transforms import KerasAffine
from tlkit.parts.augmentation import Augmentation, split_fixed_steps
from tlkit.parts.preprocess import Preprocess

PREPROCESS = Preprocess(size=96, resize="squash")
OPTIONS = {
    "none": {},
    "affine": {"rotation": 40, "shift": 0.2, "shear": 0.2, "zoom": 0.2, "flip": True},
    "standard": {},
}


def draw(transform: Augmentation, image: NDArray[np.uint8], seed: int) -> NDArray[np.uint8]:
    transform.set_random_seed(seed)
    result: NDArray[np.uint8] = transform(image=image)["image"]
    return result


@pytest.fixture
def image(photos: Path) -> NDArray[np.uint8]:
    return np.asarray(Image.open(photos / "cat.1.jpg"))


@pytest.mark.parametrize("name", OPTIONS)
def test_shape_type_and_seed(name: str, image: NDArray[np.uint8]) -> None:
    transform = REGISTRY.make("augmentation", name, OPTIONS[name], PREPROCESS)
    first = draw(transform, image, 1)
    assert first.shape == (96, 96, 3)
    assert first.dtype == np.uint8
    assert np.array_equal(draw(transform, image, 1), first)
    assert np.array_equal(draw(transform, image, 2), first) == (name == "none")


def test_nothing_drawn_is_the_plain_image(image: NDArray[np.uint8]) -> None:
    transform = REGISTRY.make("augmentation", "affine", {}, PREPROCESS)
    assert np.array_equal(draw(transform, image, 1), PREPROCESS(Image.fromarray(image)))


def test_the_affine_map_is_keras(image: NDArray[np.uint8]) -> None:
    """Keras' own formula: rotation @ shift @ shear @ zoom about the centre, interpolated by scipy."""
    pixels = PREPROCESS(Image.fromarray(image))
    angle, shifts, shearing, zooms = math.radians(25), (0.1, -0.15), math.radians(8), (1.15, 0.9)
    ours = KerasAffine(0, 0, 0, 0).apply(pixels, angle=angle, shifts=shifts, shearing=shearing, zooms=zooms)
    height, width = pixels.shape[:2]
    cosine, sine = math.cos(angle), math.sin(angle)
    turn = np.array([[cosine, -sine, 0], [sine, cosine, 0], [0, 0, 1]])
    shift = np.array([[1, 0, shifts[0] * height], [0, 1, shifts[1] * width], [0, 0, 1]])
    shear = np.array([[1, -math.sin(shearing), 0], [0, math.cos(shearing), 0], [0, 0, 1]])
    zoom = np.diag([*zooms, 1])
    centre = np.array([[1, 0, height / 2 - 0.5], [0, 1, width / 2 - 0.5], [0, 0, 1]])
    matrix = centre @ turn @ shift @ shear @ zoom @ np.linalg.inv(centre)
    theirs = np.stack(
        [
            affine_transform(
                pixels[..., channel].astype(float), matrix[:2, :2], matrix[:2, 2], order=1, mode="nearest"
            )
            for channel in range(3)
        ],
        -1,
    )
    assert np.abs(ours - theirs).mean() < 1.0


def test_draws_stay_in_their_ranges() -> None:
    transform = KerasAffine(rotation=40, shift=0.2, shear=5, zoom=0.3)
    transform.set_random_seed(0)
    drawn = [transform.get_params() for _ in range(500)]
    angles = [math.degrees(parameters["angle"]) for parameters in drawn]
    assert -40 <= min(angles) < -36
    assert 36 < max(angles) <= 40
    zooms = [zoom for parameters in drawn for zoom in parameters["zooms"]]
    assert 0.7 <= min(zooms) < 0.72
    assert 1.28 < max(zooms) <= 1.3
    assert max(abs(shift) for parameters in drawn for shift in parameters["shifts"]) <= 0.2


def test_the_fixed_steps_come_first_and_their_result_replaces_the_image(photos: Path) -> None:
    """Affine starts with preprocessing, standard with shrinking."""
    image = Image.open(photos / "cat.1.jpg").convert("RGB").resize((900, 700))
    for name, shape in (("affine", (96, 96, 3)), ("standard", (188, 242, 3))):
        transform = REGISTRY.make("augmentation", name, OPTIONS[name], PREPROCESS)
        (step,), rest = split_fixed_steps(transform)
        start = step(image=np.asarray(image))["image"]
        assert start.shape == shape
        assert draw(rest, start, 3).shape == (96, 96, 3)
        assert not np.array_equal(draw(rest, start, 3), draw(rest, start, 4))
        assert len(transform.transforms) > len(rest.transforms)  # the original is unchanged
    small = np.asarray(image.resize((150, 120)))
    assert np.array_equal(step(image=small)["image"], small)


def test_erasing_replaces_a_rectangle_by_the_mean_colour_in_a_fraction_of_images() -> None:
    black = np.zeros((200, 200, 3), np.uint8)
    options = {"flip": False, "colour": 0.0, "erase": 0.5}
    preprocess = PREPROCESS.override({"mean": (0.485, 0.456, 0.406)})
    transform = REGISTRY.make("augmentation", "standard", options, preprocess)
    mean = [124, 116, 104]
    areas = []
    for seed in range(200):
        erased = (draw(transform, black, seed) == mean).all(-1)
        rows, columns = np.flatnonzero(erased.any(1)), np.flatnonzero(erased.any(0))
        areas.append(erased.mean())
        if erased.any():
            assert erased[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()
            assert erased.sum() == len(rows) * len(columns)
            assert 0.25 < len(columns) / len(rows) < 4
    some = [area for area in areas if area]
    assert 70 < len(some) < 130
    assert 0.015 < min(some) < 0.06
    assert 0.25 < max(some) < 0.35
    plain = REGISTRY.make("augmentation", "standard", {"colour": 0.0}, PREPROCESS)
    assert not any(draw(plain, black, seed).any() for seed in range(20))


def test_a_random_crop_is_a_part_of_the_image_of_the_areas_and_ratios_asked_for() -> None:
    """The image's pixels hold their own position, so that a crop tells where it is from."""
    rows, columns = np.mgrid[0:96, 0:96].astype(np.uint8) * 2
    image = np.stack([rows, columns, rows], -1)
    options = {"scale": (0.2, 0.6), "ratio": (0.5, 2.0), "flip": False, "colour": 0.0}
    transform = REGISTRY.make("augmentation", "standard", options, PREPROCESS)
    heights, widths = [], []
    for seed in range(150):
        crop = draw(transform, image, seed).astype(float) / 2
        heights.append(np.ptp(crop[..., 0]) + 1)
        widths.append(np.ptp(crop[..., 1]) + 1)
    areas = np.multiply(heights, widths) / 96**2
    ratios = np.divide(widths, heights)
    assert 0.17 < areas.min() < 0.27
    assert 0.5 < areas.max() < 0.65
    assert 0.45 < ratios.min() < 0.65
    assert 1.6 < ratios.max() < 2.2


def test_steps_after_a_random_step_are_not_fixed() -> None:
    import albumentations as A

    fixed = REGISTRY.make("augmentation", "none", {}, PREPROCESS).transforms[0]
    assert len(split_fixed_steps(A.Compose([fixed, A.HorizontalFlip(), fixed]))[0]) == 1
    assert split_fixed_steps(A.Compose([A.HorizontalFlip(), fixed]))[0] == []
    assert split_fixed_steps(A.OneOf([fixed]))[0] == []


def test_views_depend_on_seed_and_image_whether_cached_or_not(photos: Path) -> None:
    from tlkit.data.image_cache import ImageCache
    from tlkit.data.inspection import inspect_images
    from tlkit.data.views import View, ViewReader
    from tlkit.parts.source import Sample

    (image,), _ = inspect_images([Sample("cat.1.jpg", photos / "cat.1.jpg", 0)], threads=1)
    for name in ("affine", "standard"):
        transform = REGISTRY.make("augmentation", name, OPTIONS[name], PREPROCESS)
        views = [View(PREPROCESS, transform, (number,), name) for number in range(3)]
        uncached = ViewReader(ImageCache(memory=0, disk=0)).get(image, views, remember=False)
        for cache in (ImageCache(), ImageCache(memory=0)):
            reader = ViewReader(cache)
            for _ in range(2):
                for view, expected in zip(views, uncached, strict=True):
                    (pixels,) = reader.get(image, [view], remember=True)
                    assert np.array_equal(pixels, expected)
