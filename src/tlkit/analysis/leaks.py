"""Looks for copies of test images among training images, at little cost, in the features of a run.

Images with equal bytes are in the same split or fold already; see `tlkit.data.splits`. What is left are files
that were re-encoded, resized, brightened or slightly cropped.
"""

from __future__ import annotations

import shlex

import numpy as np
import torch

from tlkit.analysis.audit_file import CopyPair
from tlkit.analysis.duplicates import Candidates, confirm_copies
from tlkit.analysis.neighbours import nearest
from tlkit.analysis.thumbnails import Thumbnails
from tlkit.errors import DataError
from tlkit.experiment.cached_features import CachedFeatures
from tlkit.experiment.observer import Observer, Run
from tlkit.utils.formatting import plural, shortlist

#: Cosine of features above which most copies are, and the most pairs whose pixels are compared.
LEAST_SIMILARITY, MAX_PAIRS = 0.75, 100
#: Pairs that the warning names.
NAMED = 3


def find_leaks(features: CachedFeatures) -> list[CopyPair]:
    """Finds copies that are in different splits, or in different folds.

    It takes under a second: only the most similar pairs are compared, and no mirror images. `find_copies`
    finds the others.
    """
    images, parts = features.images, np.array(features.parts)
    if len(images) < 2:
        return []
    neighbours = nearest(features.pooled, 2)
    first, column = np.nonzero(neighbours.similarities >= LEAST_SIMILARITY)
    similarities, second = neighbours.similarities[first, column], neighbours.indices[first, column]
    order = np.argsort(-similarities, kind="stable")
    first, second = first[order], second[order]
    apart = parts[first] != parts[second]
    if not apart.any():
        return []
    pairs = np.sort(np.stack([first[apart], second[apart]], 1), axis=1)
    _, position = np.unique(pairs, axis=0, return_index=True)
    whole, part = pairs[np.sort(position)[:MAX_PAIRS]].T
    involved = np.union1d(whole, part)
    candidates = Candidates(
        torch.from_numpy(np.searchsorted(involved, whole)),
        torch.from_numpy(np.searchsorted(involved, part)),
        torch.zeros(len(whole), dtype=torch.bool),
    )
    try:
        compared = [images[index] for index in involved]
        with Thumbnails(compared, Observer()) as thumbnails:
            return confirm_copies(compared, thumbnails, candidates, Observer())
    except DataError:  # a file was removed since: there is nothing to warn of
        return []


def describe_leaks(leaks: list[CopyPair], run: Run) -> str:
    """Describes what `find_leaks` has found, and what to do about it."""
    parts = "folds" if run.results.data.folds else "splits"
    pairs = shortlist([" and ".join(pair.images) for pair in leaks], NAMED, "; ")
    return (
        f"{plural(len(leaks), 'pair')} of copies in different {parts}: {pairs}. What is measured on copies "
        f"of training images is too good: see `tlkit audit {shlex.quote(str(run.folder))}`"
    )
