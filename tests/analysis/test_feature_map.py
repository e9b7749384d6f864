"""The map of an audit: similar images lie close together, and suspects are on it."""

from __future__ import annotations

import numpy as np
import pytest

from tlkit.analysis.feature_map import MAX_IMAGES, MIN_IMAGES, choose_images, lay_out


def test_images_of_a_cluster_lie_together() -> None:
    generator = np.random.default_rng(0)
    labels = np.arange(90) % 3
    features = (4 * np.eye(20)[labels] + generator.normal(size=(90, 20))).astype(np.float32)
    coordinates = lay_out(features)
    assert coordinates.min() == 0 and coordinates.max() == 1 and coordinates.shape == (90, 2)
    distances = np.linalg.norm(coordinates[:, None] - coordinates[None], axis=2)
    np.fill_diagonal(distances, np.inf)
    assert (labels[distances.argmin(1)] == labels).mean() > 0.9
    assert (lay_out(features) == coordinates).all()


@pytest.mark.parametrize("count", [MIN_IMAGES, 31])
def test_few_images_and_equal_ones_have_places(count: int) -> None:
    assert np.isfinite(lay_out(np.ones((count, 5), np.float32))).all()


def test_suspects_are_among_the_images_that_are_shown() -> None:
    assert choose_images(MAX_IMAGES, np.array([], np.int64)).tolist() == list(range(MAX_IMAGES))
    suspects = np.array([3, 77, 4999])
    chosen = choose_images(5000, suspects)
    assert len(chosen) == len(set(chosen)) == MAX_IMAGES
    assert set(suspects) <= set(chosen.tolist())
    assert chosen.mean() == pytest.approx(2500, rel=0.1)
