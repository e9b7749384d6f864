"""Finds trivial properties that tell the classes apart, which a classifier may learn in their place."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from math import erfc, sqrt
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tlkit.analysis.audit_file import Shortcut
from tlkit.data.folds import split_stratified
from tlkit.data.images import Image, UnreadableImage, read_thumbnail
from tlkit.experiment.observer import Observer
from tlkit.runtime.processors import reader_threads

#: Images that are looked at: all, or of more a random sample.
MAX_IMAGES = 4000
#: Side of the thumbnails, in pixels.
THUMBNAIL = 32
FOLDS = 5
#: Reported if the accuracy is this improbable by chance, and this part of the way from chance to 1: small
#: differences between classes are significant in many images, and do no harm.
MAX_P = 0.001
MIN_ADVANTAGE = 0.25


def find_shortcuts(
    images: Sequence[Image], labels: NDArray[np.int64], groups: NDArray[np.int64], observer: Observer
) -> tuple[Shortcut, ...]:
    """Finds out whether size, brightness or border alone tell the classes apart, the best one first.

    A decision tree is cross-validated on each of them.

    Args:
        images: the images.
        labels: their labels, int64 ``(N,)``.
        groups: their groups, int64 ``(N,)``; a tree is not tested on the groups that it is fitted to.
        observer: is shown the progress.
    """
    sample = np.random.default_rng(0).permutation(len(images))[:MAX_IMAGES]
    counts = np.bincount(labels[sample])
    sample = sample[counts[labels[sample]] >= FOLDS]
    if min(len(np.unique(labels[sample])), len(np.unique(groups[sample]))) < 2:
        return ()
    with observer.progress("looking for shortcuts", len(sample), "images") as tick:
        with ThreadPoolExecutor(reader_threads()) as pool:
            rows = []
            for row in pool.map(lambda index: _properties(images[index]), sample):
                rows.append(row)
                tick(1)
    properties = np.array(rows)
    shortcuts = []
    columns: dict[Literal["size", "brightness", "border"], slice] = {
        "size": slice(0, 3),
        "brightness": slice(3, 5),
        "border": slice(5, None),
    }
    for name, of_property in columns.items():
        accuracy, chance, p = _cross_validate(properties[:, of_property], labels[sample], groups[sample])
        if p <= MAX_P and accuracy - chance >= MIN_ADVANTAGE * (1 - chance):
            shortcuts.append(Shortcut(property=name, accuracy=accuracy, chance=chance, p=p))
    return tuple(sorted(shortcuts, key=lambda shortcut: -shortcut.accuracy))


def _properties(image: Image) -> NDArray[np.float64]:
    """Returns width, height and their ratio; mean and spread of the greys; mean and spread of the border."""
    size = [image.width, image.height, image.width / image.height]
    try:
        pixels = np.asarray(read_thumbnail(image.sample.path, THUMBNAIL), np.float64)
    except UnreadableImage:  # it has changed since it was read: nothing is known but its former size
        return np.array([*size, *[np.nan] * 6])
    grey = pixels.mean(2)
    border = np.concatenate([pixels[0], pixels[-1], pixels[1:-1, 0], pixels[1:-1, -1]])
    return np.array([*size, grey.mean(), grey.std(), *border.mean(0), border.std()])


def _cross_validate(
    columns: NDArray[np.float64], labels: NDArray[np.int64], groups: NDArray[np.int64]
) -> tuple[float, float, float]:
    """Returns the balanced accuracy of a tree out of fold, that of guessing, and how improbable it is.

    Images of one group are right or wrong together: a class counts as many as it has groups.
    """
    from sklearn.metrics import balanced_accuracy_score
    from sklearn.model_selection import cross_val_predict
    from sklearn.tree import DecisionTreeClassifier

    counts = np.unique(labels, return_counts=True)[1]
    leaf = max(2, int(counts.min()) // 10)
    tree = DecisionTreeClassifier(min_samples_leaf=leaf, class_weight="balanced", random_state=0)
    folds = split_stratified(labels, FOLDS, 0, groups)
    predicted = cross_val_predict(tree, columns, labels, cv=folds)
    accuracy, chance = float(balanced_accuracy_score(labels, predicted)), 1 / len(counts)
    independent = np.array([len(np.unique(groups[labels == label])) for label in np.unique(labels)])
    spread = sqrt(chance * (1 - chance) * float((1 / independent).sum())) / len(counts)
    return accuracy, chance, erfc((accuracy - chance) / spread / sqrt(2)) / 2
