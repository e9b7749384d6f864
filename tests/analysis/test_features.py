"""Features of labelled images, as all questions to them share them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tlkit.analysis.features import compute_features, read_labelled
from tlkit.analysis.targets import recipe_for
from tlkit.errors import DataError
from tlkit.experiment.observer import Observer
from tlkit.plugins.loader import load_registry

SHARED = Path(__file__).parents[3] / "shared"
BACKBONE = f"local-dir:{SHARED / 'weights' / 'mobilenetv2_100'}"


@pytest.fixture(scope="module")
def folder(datasets, tmp_path_factory):
    """Ten photos of each of two flowers, a split above them, one file that is no image."""
    root = tmp_path_factory.mktemp("flowers")
    for split, first in (("train", 0), ("test", 6)):
        for name in ("rose", "daisy"):
            photos = sorted((datasets / "flowers/train" / name).iterdir())
            target = root / split / name
            target.mkdir(parents=True)
            for photo in photos[first : first + 6 - first // 3]:
                (target / photo.name).write_bytes(photo.read_bytes())
    (root / "train/rose/broken.jpg").write_bytes(b"no image")
    return root


@pytest.fixture(scope="module")
def features(folder):
    registry = load_registry()
    labelled = read_labelled(recipe_for(folder), registry, Observer())
    return compute_features(labelled, backbone=BACKBONE, registry=registry)


def test_all_labelled_images_have_features_and_their_own_splits(features):
    labelled = features.labelled
    assert labelled.classes == ("daisy", "rose")
    assert len(features) == 20
    assert [image for image, _ in labelled.rejected] == ["train/rose/broken.jpg"]
    assert labelled.splits.count("train") == 12 and labelled.splits.count("test") == 8
    assert features.mean.shape == (20, 1280)


def test_features_are_those_that_the_network_computes(features):
    import torch

    from tlkit.data.images import read_image
    from tlkit.data.loader import normalize

    backbone = load_registry().make("backbone", BACKBONE, {})
    pixels = np.asarray(backbone.preprocess(read_image(features.labelled.images[3].sample.path)))
    with torch.no_grad():
        images = normalize(pixels[None], backbone.preprocess)
        plain, mirrored = (backbone.module.eval()(x).numpy()[0] for x in (images, images.flip(3)))
    assert not np.allclose(plain, mirrored, rtol=0.1, atol=0.1)
    np.testing.assert_allclose(features.mean[3], (plain + mirrored) / 2, rtol=1e-3, atol=1e-3)


def test_out_of_fold_predictions_are_of_probes_that_did_not_see_the_image(features):
    labels = features.labels.copy()
    rows = features.probes.out_of_fold(features.mean, labels, np.arange(20), folds=4)
    assert rows.shape == (20, 2)
    np.testing.assert_allclose(rows.sum(1), 1)
    assert (rows.argmax(1) == labels).mean() >= 0.8
    # a wrong label of its own does not make an image's prediction agree with it
    image = int(rows[np.arange(20), labels].argmax())
    labels[image] = 1 - labels[image]
    again = features.probes.out_of_fold(features.mean, labels, np.arange(20), folds=4)
    assert again[image].argmax() == 1 - labels[image]


def test_a_recipe_has_the_splits_that_its_run_draws(folder, tmp_path):
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(
        f'name = "flowers"\n[data]\nsource = "folder"\nroot = "{folder}"\non_unreadable = "skip"\n'
        f'[backbone]\nname = "{BACKBONE}"\n[[phase]]\nname = "probe"\n'
    )
    labelled = read_labelled(recipe_for(recipe), load_registry(), Observer())
    assert labelled.name == "flowers"
    assert {split: labelled.splits.count(split) for split in ("train", "val", "test")} == {
        "train": 10,
        "val": 2,
        "test": 8,
    }


def test_a_target_that_is_not_there_is_a_clear_error(tmp_path):
    with pytest.raises(DataError, match="does not exist: name a folder per class"):
        recipe_for(tmp_path / "none")
