"""Which images are selected: uncertain ones that differ, and typical ones of groups."""

from __future__ import annotations

import numpy as np

from tlkit.analysis.selection import cluster_positions, select_typical, select_uncertain

GENERATOR = np.random.default_rng(3)
#: Four groups of directions, of 40, 30, 20 and 10 images.
GROUPS = np.repeat(np.arange(4), [40, 30, 20, 10])
FEATURES = (10 * np.eye(4, 8)[GROUPS] + GENERATOR.normal(size=(100, 8))).astype(np.float32)
POSITIONS = cluster_positions(FEATURES)


def with_margins(margins):
    """Returns probabilities of two classes whose highest two differ by as much."""
    return np.stack([(1 + margins) / 2, (1 - margins) / 2], 1)


def test_typical_images_are_one_of_each_group_the_largest_first():
    selected = select_typical(POSITIONS, 4)
    assert [GROUPS[image.index] for image in selected] == [0, 1, 2, 3]
    assert [image.similar for image in selected] == [40, 30, 20, 10]
    # in the middle of its group, not at its edge
    members = np.flatnonzero(GROUPS == 0)
    directions = FEATURES / np.linalg.norm(FEATURES, axis=1, keepdims=True)
    distances = np.linalg.norm(directions[members] - directions[members].mean(0), axis=1)
    assert distances[members == selected[0].index] < np.median(distances)


def test_uncertain_images_come_from_groups_that_the_classifier_does_not_know():
    margins = np.where(GROUPS == 3, 0.05, 0.999)
    selected = select_uncertain(POSITIONS, with_margins(margins), 4)
    assert len({image.index for image in selected}) == 4
    assert GROUPS[selected[0].index] == 3
    assert [GROUPS[image.index] for image in selected].count(3) >= 2
    scores = [image.score for image in selected]
    assert scores == sorted(scores, reverse=True)


def test_a_group_that_is_uncertain_yields_images_that_differ():
    copies = np.concatenate([np.repeat(POSITIONS[:1], 50, 0), POSITIONS[40:45]])
    margins = np.full(len(copies), 0.5)
    selected = select_uncertain(copies, with_margins(margins), 5)
    assert sum(image.index < 50 for image in selected) == 1


def test_images_like_labelled_ones_are_not_selected():
    roots = np.sign(FEATURES) * np.sqrt(np.abs(FEATURES))
    roots /= np.linalg.norm(roots, axis=1, keepdims=True)
    # half of the first and of the second group, and none of the others, are labelled
    labelled = np.flatnonzero((np.arange(100) % 2 == 0) & (GROUPS < 2))
    unlabelled = np.setdiff1d(np.arange(100), labelled)
    positions = cluster_positions(FEATURES[unlabelled], roots[labelled])
    np.testing.assert_allclose(np.linalg.norm(positions, axis=1), 1, atol=1e-5)
    probabilities = with_margins(np.full(len(unlabelled), 0.5))
    alone, compared = (
        GROUPS[unlabelled[[image.index for image in select_uncertain(given, probabilities, 8)]]]
        for given in (positions[: len(unlabelled)], positions)
    )
    assert len(alone) == len(compared) == 8
    assert (alone < 2).sum() > (compared < 2).sum()


def test_fewer_images_than_asked_for_and_a_classifier_that_is_certain():
    assert len(select_typical(POSITIONS[:3], 20)) == 3
    assert len(select_typical(np.repeat(POSITIONS[:1], 6, 0), 4)) == 1
    selected = select_uncertain(POSITIONS[:30], with_margins(np.ones(30)), 7)
    assert len({image.index for image in selected}) == 7


def test_the_seed_decides():
    probabilities = with_margins(GENERATOR.random(100))
    first, again = (select_uncertain(POSITIONS, probabilities, 20, seed=5) for _ in range(2))
    assert first == again
    assert first != select_uncertain(POSITIONS, probabilities, 20, seed=6)
