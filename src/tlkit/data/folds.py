"""Divides training images into the folds of a cross-validation.

scikit-learn's splitters do it: stratified, and with images that belong together in the same fold.
"""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tlkit.data.splits import class_matrix
from tlkit.data.stratification import properties, spread
from tlkit.errors import DataError
from tlkit.utils.formatting import plural
from tlkit.utils.hashing import seed as derive_seed

if TYPE_CHECKING:
    from tlkit.data.images import Image

#: Searches a regular expression. With some, this takes longer than anyone waits, even in a short name.
SEARCH = """
import json, re, sys
pattern, names = json.load(sys.stdin)
matches = (re.search(pattern, name) for name in names)
json.dump([match and str(match[min(1, match.re.groups)]) for match in matches], sys.stdout)
"""
SEARCH_SECONDS = 60
#: The fold of an image that is trained on in every fold.
ALWAYS_TRAINED = -1


@dataclass(frozen=True)
class Folds:
    """The folds of the training images, drawn once or several times.

    Attributes:
        assignment: the fold of each image in each repeat, ``(repeats, N)``; -1: it is trained on in all.
        count: the number of folds.
        untested: the classes whose images are all trained on in every fold, since they cannot be divided.
    """

    assignment: NDArray[np.int64]
    count: int
    untested: tuple[str, ...] = ()

    @property
    def repeats(self) -> int:
        """How many times the folds were drawn."""
        return len(self.assignment)

    def held_out(self, repeat: int, fold: int) -> NDArray[np.int64]:
        """Returns the positions of the images that a fold is tested on."""
        return np.flatnonzero(self.assignment[repeat] == fold)

    def trained_on(self, repeat: int, *without: int) -> NDArray[np.int64]:
        """Returns the positions of the images that are in none of these folds."""
        return np.flatnonzero(~np.isin(self.assignment[repeat], without))


class TooManyFoldsError(DataError):
    """No class has as many images as there are folds.

    Attributes:
        most: the largest number of folds that could be drawn.
    """

    def __init__(self, message: str, most: int) -> None:
        super().__init__(message)
        self.most = most


def draw_folds(
    images: Sequence[Image],
    classes: Sequence[str],
    *,
    seed: int,
    folds: int,
    repeats: int = 1,
    group: str | None = None,
) -> Folds:
    """Draws folds, in which every class has about the same share of the images.

    Where images may have several classes, frequent combinations of them are spread evenly, too.

    Images with equal bytes are in the same fold, and so are those of one group. A class whose images are all
    in one group cannot be tested: they are trained on in every fold.

    Args:
        images: labelled images.
        classes: class names; a label is an index into them.
        seed: seed of the draw.
        folds: number of folds.
        repeats: how many times to draw.
        group: a regular expression that is searched in an image's id; images with the same match, or the same
            first group in it, belong together. An image without a match stands alone. None: the groups are
            those of the source.

    Raises:
        TooManyFoldsError: no class has as many images, or groups of them, as there are folds.
        DataError: the regular expression matches no image.
    """
    has_class, groups = class_matrix(images, len(classes)), group_names(images, group)
    groups_of = [set(groups[members]) for members in has_class.T]
    whole = {next(iter(names)) for names in groups_of if len(names) == 1}
    divided = np.array([name not in whole for name in groups])
    most = max(len(names - whole) for names in groups_of)
    if most < folds:
        grouped = group or any(image.sample.group for image in images)
        units = "groups" if grouped else "distinct images"
        raise TooManyFoldsError(
            f"data.folds: no class has images for {folds} folds: the largest has {most} {units}; at most "
            f"{most} folds can be drawn"
            if most > 1
            else f"data.folds: no class has two {units} that can be in different folds: add images",
            most,
        )
    assignment = np.full((repeats, len(images)), ALWAYS_TRAINED)
    index = np.flatnonzero(divided)
    _, codes = np.unique(groups[index], return_inverse=True)
    for repeat in range(repeats):
        random_state = derive_seed(seed, "folds", repeat) % 2**32
        if images[0].sample.labels is None:
            assignment[repeat, index] = assign_folds(has_class[index].argmax(1), codes, folds, random_state)
        else:
            assignment[repeat, index] = _spread(has_class[index], codes, folds, random_state)
    untested = [name for name, names in zip(classes, groups_of, strict=True) if names and names <= whole]
    return Folds(assignment, folds, tuple(untested))


def split_stratified(
    labels: NDArray[np.int64], folds: int, seed: int, groups: NDArray[np.int64] | None = None
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Yields, per fold, the positions of the images to train on, and of those that are held out.

    A class with fewer images than folds is in fewer of them. Images of one group are in the same fold; each
    stands alone unless groups are given.
    """
    fold_of = assign_folds(labels, np.arange(len(labels)) if groups is None else groups, folds, seed)
    for fold in np.unique(fold_of):
        yield np.flatnonzero(fold_of != fold), np.flatnonzero(fold_of == fold)


def _without_warning(
    splitter: Any, labels: NDArray[np.int64], groups: NDArray[np.int64] | None = None
) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Splits without scikit-learn's warning of classes with fewer images than folds."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The least populated class")
        return list(splitter.split(labels, labels, groups))


def assign_folds(
    labels: NDArray[np.int64], groups: NDArray[np.int64], folds: int, random_state: int
) -> NDArray[np.int64]:
    """Returns the fold of each image, ``(N,)``: stratified, and the same for all images of a group."""
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    grouped = len(np.unique(groups)) < len(groups)
    # the one that knows groups is slow
    kind = StratifiedGroupKFold if grouped else StratifiedKFold
    splitter, together = kind(folds, shuffle=True, random_state=random_state), groups if grouped else None
    drawn = np.empty(len(labels), np.int64)
    for fold, (_, held_out) in enumerate(_without_warning(splitter, labels, together)):
        drawn[held_out] = fold
    return drawn


def _spread(
    has_class: NDArray[np.bool_], groups: NDArray[np.int64], folds: int, random_state: int
) -> NDArray[np.int64]:
    """Returns the fold of each image that may have several classes."""
    sizes = np.bincount(groups)
    members = np.zeros((len(sizes), 0), np.int64)
    for has in properties(has_class, least=folds).T:
        members = np.column_stack([members, np.bincount(groups[has], minlength=len(sizes))])
    needed = np.repeat(members.sum(0)[:, None] / folds, folds, axis=1)
    room = np.full(folds, len(groups) / folds)
    return spread(members, sizes, needed, room, np.random.default_rng(random_state))[groups]


def group_names(images: Sequence[Image], pattern: str | None) -> NDArray[np.str_]:
    """Returns the name of each image's group; images with equal bytes join their groups.

    Args:
        images: the images.
        pattern: as `group` of `draw_folds`.

    Raises:
        DataError: the regular expression matches no image.
    """
    if pattern is None:
        matches = [image.sample.group for image in images]
    else:
        ids = [image.sample.id for image in images]
        matches = _search(pattern, ids)
        if not any(matches):
            raise DataError(f"data.group: {pattern!r} matches no image; their names are such as {ids[0]!r}")
    names = [
        image.sha256 if match is None else f"group {match}"
        for image, match in zip(images, matches, strict=True)
    ]
    joined: dict[str, str] = {}
    for name, image in zip(names, images, strict=True):
        joined.setdefault(image.sha256, name)
    return np.array([joined[image.sha256] for image in images])


def _search(pattern: str, names: Sequence[str]) -> list[str | None]:
    """Returns each name's match of a regular expression, or its first group; None without a match.

    Another process searches, since a search cannot be interrupted in this one.

    Raises:
        DataError: it takes too long, or the other process fails.
    """
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-c", SEARCH],
            input=json.dumps([pattern, names]),
            capture_output=True,
            encoding="utf-8",
            timeout=SEARCH_SECONDS,
            check=True,
        )
    except subprocess.TimeoutExpired as error:
        raise DataError(
            f"data.group: searching {pattern!r} in the names of {plural(len(names), 'image')} takes more "
            f"than {SEARCH_SECONDS} s: write it without a repeat inside a repeat, such as (a+)+"
        ) from error
    except (subprocess.CalledProcessError, OSError) as error:
        written = getattr(error, "stderr", "").strip()
        reason = written.splitlines()[-1] if written else error
        raise DataError(f"data.group: the process that searches {pattern!r} failed: {reason}") from error
    result: list[str | None] = json.loads(done.stdout)
    return result
