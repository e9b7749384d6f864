"""Overrides of a backbone's preprocessing, and the pixels that it makes."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from timm.data import create_transform

from tlkit.parts.preprocess import TIMM_CROP_MODES, Preprocess

BASE = Preprocess(size=224, crop=0.875, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))


def test_an_override_changes_only_what_it_names() -> None:
    changed = BASE.override({"size": 96, "mean": [0.1, 0.2, 0.3]})
    assert changed == Preprocess(size=96, crop=0.875, mean=(0.1, 0.2, 0.3), std=(0.25, 0.25, 0.25))
    assert BASE.override({}) == BASE
    assert hash(changed) == hash(BASE.override({"mean": (0.1, 0.2, 0.3), "size": 96}))


@pytest.mark.parametrize("resize", ["squash", "pad"])
def test_squashing_and_padding_keep_the_whole_image_unless_told_otherwise(resize: str) -> None:
    assert BASE.override({"resize": resize}).crop == 1.0
    assert BASE.override({"resize": resize, "crop": 0.9}).crop == 0.9
    assert BASE.override({"resize": "crop"}).crop == 0.875


@pytest.mark.parametrize("resize", ["crop", "squash", "pad"])
def test_pixels_have_the_size_asked_for_whatever_the_image(resize: str) -> None:
    preprocess = BASE.override({"size": 32, "resize": resize})
    for width, height in ((64, 64), (90, 40), (10, 70), (1, 1)):
        pixels = preprocess(Image.new("RGB", (width, height), (10, 20, 30)))
        assert pixels.shape == (32, 32, 3)
        assert pixels.dtype == np.uint8


@pytest.mark.parametrize("resize", ["crop", "squash", "pad"])
@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic", "lanczos"])
def test_pixels_are_those_of_timm(resize: str, interpolation: str) -> None:
    """Odd and even sides, images larger and smaller than the result, and of its size."""
    rng = np.random.default_rng(0)
    for size, crop in ((32, 0.875), (31, 0.95), (32, 1.0)):
        preprocess = Preprocess(size=size, resize=resize, crop=crop, interpolation=interpolation)
        theirs = create_transform(
            size,
            use_prefetcher=True,
            interpolation=interpolation,
            crop_pct=crop,
            crop_mode=TIMM_CROP_MODES[preprocess.resize],
        )
        for width, height in ((97, 60), (45, 120), (33, 34), (32, 32), (7, 20), (1, 1)):
            image = Image.fromarray(rng.integers(0, 256, (height, width, 3), np.uint8))
            expected = np.asarray(theirs(image)).transpose(1, 2, 0)
            np.testing.assert_array_equal(preprocess(image), expected, f"{width}x{height} to {size}, {crop}")


def test_what_is_cut_off_squashed_or_padded() -> None:
    """A wide image, red at its left and right edges."""
    image = Image.new("RGB", (120, 40), (255, 0, 0))
    image.paste((0, 0, 255), (40, 0, 80, 40))
    pixels = {
        resize: Preprocess(size=40, resize=resize, interpolation="nearest")(image)
        for resize in ("crop", "squash", "pad")
    }
    assert (pixels["crop"][..., 2] == 255).all(), "only the middle is left"
    assert pixels["squash"][20, 0, 0] == pixels["squash"][20, -1, 0] == 255
    assert pixels["squash"][20, 20, 2] == 255
    assert pixels["pad"][20, 0, 0] == 255 and pixels["pad"][20, 20, 2] == 255
    assert (pixels["pad"][:10] == pixels["pad"][0, 0]).all(), "a border above"
    assert (pixels["pad"][20, 20] != pixels["pad"][0, 20]).any()
