"""Trivial properties that tell classes apart."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from tlkit.analysis.shortcuts import find_shortcuts
from tlkit.data.inspection import inspect_images
from tlkit.experiment.observer import Observer
from tlkit.parts.source import Sample

PHOTOS = 40


def shrink(image):
    return image.resize((image.width // 2, image.height // 2))


def darken(image):
    return ImageEnhance.Brightness(image).enhance(0.3)


def frame(image):
    return ImageOps.expand(image.resize((120, 90)), 12)


@pytest.mark.parametrize(
    ("change", "properties"),
    [(None, set()), (shrink, {"size"}), (darken, {"brightness"}), (frame, {"border"})],
)
def test_a_shortcut_is_found_where_there_is_one(change, properties, real_photos, tmp_path):
    samples = []
    for label, kind in enumerate(("cat", "dog")):
        for file in sorted(real_photos.glob(f"{kind}.*"))[:PHOTOS]:
            # photos of one size each: Kaggle's own sizes would tell little, but not nothing
            image = ImageOps.fit(Image.open(file), (160, 120))
            if label and change:
                image = change(image)
            image.save(tmp_path / file.name)
            samples.append(Sample(file.name, tmp_path / file.name, label))
    images, _ = inspect_images(samples, threads=2)
    labels = np.array([image.sample.label for image in images])
    shortcuts = find_shortcuts(images, labels, np.arange(len(images)), Observer())
    assert properties <= {shortcut.property for shortcut in shortcuts}
    assert bool(shortcuts) == bool(properties)
    for shortcut in shortcuts:
        assert shortcut.chance == 0.5 and shortcut.p < 0.001 and shortcut.accuracy > 0.7
