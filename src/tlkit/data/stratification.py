"""Spreads images with several labels evenly over parts, such as splits or folds.

Iterative stratification (Sechidis, Tsoumakas and Vlahavas, "On the Stratification of Multi-Label Data",
2011): the rarest label is dealt out first, each image to the part that still needs most of it. scikit-learn
has no splitter for several labels.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def spread(
    members: NDArray[np.int64],
    sizes: NDArray[np.int64],
    needed: NDArray[np.float64],
    room: NDArray[np.float64],
    generator: np.random.Generator,
) -> NDArray[np.int64]:
    """Deals out groups of images.

    Args:
        members: how many images of each group have each property, ``(G, properties)``; every image has one.
        sizes: the number of images of each group, ``(G,)``.
        needed: how many images with each property each part shall have, ``(properties, parts)``.
        room: how many images each part shall have, ``(parts,)``.
        generator: draws the order of the groups.

    Returns:
        The part of each group, ``(G,)``.
    """
    needed, room = needed.copy(), room.copy()
    part_of = np.full(len(members), -1)
    order, remaining = generator.permutation(len(members)), members.sum(0)
    while len(left := order[part_of[order] < 0]):
        rarest = int(np.where(remaining > 0, remaining, np.iinfo(np.int64).max).argmin())
        for group in left[members[left, rarest] > 0]:
            # among parts that need as many of this one, the one with the most room
            part = int(np.lexsort((-room, -needed[rarest]))[0])
            part_of[group] = part
            needed[:, part] -= members[group]
            remaining -= members[group]
            room[part] -= sizes[group]
    return part_of


def fill_gaps(part_of: NDArray[np.int64], has_class: NDArray[np.bool_], parts: int) -> NDArray[np.int64]:
    """Moves images so that each part has each class, where there are enough.

    The first part, which is for training, gets all classes. Then the last, which is for testing, and the
    others get those that cost no other part its last image of any class.

    Args:
        part_of: the part of each image, ``(N,)``.
        has_class: whether each image has each class, ``(N, classes)``.
        parts: number of parts.

    Returns:
        The part of each image, ``(N,)``.
    """
    part_of = part_of.copy()
    counts = np.stack([has_class[part_of == part].sum(0) for part in range(parts)])
    for part in dict.fromkeys((0, parts - 1, *range(parts))):
        for column in np.flatnonzero(has_class.any(0)):
            movable = np.flatnonzero(has_class[:, column] & (part_of != part))
            if counts[part, column] or not len(movable):
                continue
            lost = (has_class[movable] & (counts[part_of[movable]] == 1)).sum(1)
            image = movable[lost.argmin()]
            if part == 0 or not lost.min():
                counts[part_of[image]] -= has_class[image]
                counts[part] += has_class[image]
                part_of[image] = part
    return part_of


def properties(has_class: NDArray[np.bool_], least: float) -> NDArray[np.bool_]:
    """Returns what is to be spread evenly: classes, and combinations of classes that are frequent enough.

    Args:
        has_class: whether each image has each class, ``(N, classes)``.
        least: the number of images from which on a combination of classes counts as a property.

    Returns:
        Whether each image has each property, ``(N, properties)``; the first ones are the classes.
    """
    _, index, counts = np.unique(has_class, axis=0, return_inverse=True, return_counts=True)
    has_combination = index.reshape(-1, 1) == np.flatnonzero(counts >= least)
    empty = ~has_class.any(1, keepdims=True)
    return np.hstack([has_class, has_combination, empty])
