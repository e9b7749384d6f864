"""Finds similar images in different splits that are no copies: probably several photos of one object."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from tlkit.analysis.audit_file import Series
from tlkit.analysis.features import DatasetFeatures
from tlkit.analysis.neighbours import Neighbours

#: Images are looked for among each other's nearest few, since a series may have several.
MUTUAL = 3
#: The similarity counts in excess of that to the sixth neighbour, to which a series rarely extends: where all
#: images are alike, much similarity means little.
BEYOND = 5
#: How many robust standard deviations the excess is above that of other images' nearest neighbours. At 3,
#: 17 of 18 pairs in `waste` are of one object by eye.
DEVIATIONS = 3.0
#: From median absolute deviations to standard deviations.
MAD_TO_STANDARD = 1.4826
#: Among fewer images nothing is known about what is usual.
MIN_IMAGES = 20


def find_series(
    features: DatasetFeatures, neighbours: Neighbours, copies: Iterable[tuple[str, str]] = ()
) -> tuple[Series, ...]:
    """Finds pairs of images in different splits that are probably of one object, the most striking first.

    Args:
        features: the images.
        neighbours: of their mean features, 6 or more.
        copies: ids of pairs that are the same photo: they are left out.
    """
    if len(features) < MIN_IMAGES or neighbours.indices.shape[1] <= BEYOND:
        return ()
    similarities = neighbours.similarities
    usual = similarities[:, BEYOND]
    excess = similarities[:, 0] - usual
    median = np.median(excess)
    limit = median + DEVIATIONS * MAD_TO_STANDARD * np.median(np.abs(excess - median))
    known = {frozenset(pair) for pair in copies}
    splits, images = features.labelled.splits, features.labelled.images
    pairs = []
    near = neighbours.indices[:, :MUTUAL]
    for first, position in np.argwhere(similarities[:, :MUTUAL] - usual[:, None] > limit):
        second = near[first, position]
        similarity = similarities[first, position]
        if first > second or first not in near[second] or similarity - usual[second] <= limit:
            continue
        ids = (images[first].sample.id, images[second].sample.id)
        across = splits[first] is not None and splits[second] is not None and splits[first] != splits[second]
        if across and frozenset(ids) not in known:
            striking = similarity - max(usual[first], usual[second])
            pairs.append((float(striking), Series(images=ids, similarity=float(similarity))))
    return tuple(series for _, series in sorted(pairs, key=lambda item: (-item[0], item[1].images)))
