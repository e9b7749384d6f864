"""Nearest neighbours, block by block."""

from __future__ import annotations

import numpy as np
import pytest

from tlkit.analysis import neighbours
from tlkit.analysis.neighbours import nearest


@pytest.fixture(scope="module")
def features():
    generator = np.random.default_rng(0)
    centres = generator.normal(size=(40, 32))
    return (3 + centres.repeat(10, 0) + generator.normal(size=(400, 32))).astype(np.float32)


def by_definition(features, queries, k):
    centred, others = features - features.mean(0), queries - features.mean(0)
    centred /= np.linalg.norm(centred, axis=1, keepdims=True)
    others /= np.linalg.norm(others, axis=1, keepdims=True)
    similarities = others @ centred.T
    np.fill_diagonal(similarities, -np.inf)
    order = np.argsort(-similarities, axis=1)[:, :k]
    return order, np.take_along_axis(similarities, order, 1)


@pytest.mark.parametrize("limit", [neighbours.MAX_SIMILARITIES, 400 * 7, 1])
def test_neighbours_are_the_most_similar_others_whatever_the_blocks(features, limit, monkeypatch):
    monkeypatch.setattr(neighbours, "MAX_SIMILARITIES", limit)
    queries = features + np.float32(0.1)
    for queried, among in ((None, features), (queries, queries)):
        neighbourhood = nearest(features, 5, queries=queried)
        indices, similarities = by_definition(features, among, 5)
        np.testing.assert_array_equal(neighbourhood.indices, indices)
        np.testing.assert_allclose(neighbourhood.similarities, similarities, atol=1e-5)


def test_of_many_images_neighbours_are_found_in_an_index(features, monkeypatch):
    exact = nearest(features, 5)
    monkeypatch.setattr(neighbours, "MAX_EXACT", 100)
    monkeypatch.setattr(neighbours, "COMPONENTS", 24)
    monkeypatch.setattr(neighbours, "PROBES", 4)
    monkeypatch.setattr(neighbours, "SPARE", 10)
    neighbourhood = nearest(features, 5)
    recall = [np.isin(*rows).mean() for rows in zip(exact.indices, neighbourhood.indices, strict=True)]
    assert np.mean(recall) > 0.9
    # the similarities are those of all components: a row that misses none has the exact ones
    complete = np.array(recall) == 1
    np.testing.assert_allclose(neighbourhood.similarities[complete], exact.similarities[complete], atol=1e-5)
    again = nearest(features, 5, queries=features)
    np.testing.assert_array_equal(again.indices, neighbourhood.indices)
    assert all(row not in near for row, near in enumerate(neighbourhood.indices))


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("k", [5, 399])
def test_of_many_images_that_are_all_alike_others_are_neighbours(k, monkeypatch):
    monkeypatch.setattr(neighbours, "MAX_EXACT", 100)
    neighbourhood = nearest(np.ones((400, 32), np.float32), k)
    assert all(len({row, *near}) == k + 1 for row, near in enumerate(neighbourhood.indices))


def test_there_are_no_more_neighbours_than_other_images(features):
    assert nearest(features[:3], 15).indices.shape == (3, 2)
    assert nearest(features[:1], 15).indices.shape == (1, 0)
