"""Finds images whose label is probably wrong, and estimates how many of those found are errors.

An image's score is the log of how much more probable another class is than the given one, by a probe that
did not see the image times the votes of its nearest neighbours. Where to cut is found by planting errors: a
further 5% of the labels are changed at random, and the images are scored anew. What fraction of the planted
errors is found at each threshold is then known. The fraction of true errors among all labels cannot be
larger than that of all images above a threshold divided by that of the planted errors: the smallest value is
the estimate, as in learning from positive and unlabelled examples (Scott, "A rate of convergence for mixture
proportion estimation", 2015).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, exp

import numpy as np
from numpy.typing import NDArray

from tlkit.analysis.audit_file import LabelErrors, LabelSuspect
from tlkit.analysis.features import DatasetFeatures
from tlkit.analysis.neighbours import Neighbours
from tlkit.analysis.out_of_fold import OutOfFold
from tlkit.experiment.observer import Observer
from tlkit.utils.hashing import seed as derive_seed

#: Neighbours that vote, and how much their similarity has to differ for votes to differ by a factor of e.
VOTERS = 15
TEMPERATURE = 0.1
#: Votes that every class has beforehand.
PRIOR = 0.5
#: The fraction of labels that is changed, how many have to be in all, and how often it is done at most.
PLANTED = 0.05
ENOUGH_PLANTED = 300
MAX_ROUNDS = 10
#: With fewer images than this nothing can be estimated from planted errors, and an image is listed if another
#: class is this many times as probable.
MIN_IMAGES = 60
CLEARLY = 20.0
#: The fraction of errors is estimated at thresholds that find at least this fraction of the planted ones:
#: there are too few images above others.
MIN_RECALL = 0.3


def find_label_errors(
    features: DatasetFeatures, neighbours: Neighbours, out_of_fold: OutOfFold, observer: Observer
) -> LabelErrors:
    """Finds images whose label is probably wrong.

    Args:
        features: the images.
        neighbours: of their mean features, 15 or more.
        out_of_fold: predictions from their mean features.
        observer: is shown the progress.
    """
    labels, names = features.labels, features.labelled.classes
    scores, suggested = score_labels(labels, out_of_fold.log_probabilities, neighbours)
    scored = int(np.isfinite(scores).sum())
    if len(names) < 2 or scored < MIN_IMAGES:
        cut, precision, recall = float(np.log(CLEARLY)), None, None
        method = (
            f"not estimated: {scored} images of classes with two or more are too few to plant errors in (at "
            f"least {MIN_IMAGES}); listed is where another class is {CLEARLY:.0f} times as probable"
        )
    else:
        best = find_cut(labels, neighbours, out_of_fold, observer)
        cut, precision, recall, method = best.score, best.precision, best.recall, best.method
    order = np.argsort(-scores, kind="stable")
    suspects = tuple(
        LabelSuspect(
            image=features.labelled.images[index].sample.id,
            label=names[labels[index]],
            suggested=names[suggested[index]],
            score=float(scores[index]),
            probability=min(1.0, exp(out_of_fold.log_probabilities[index, labels[index]])),
        )
        for index in order[: int((scores >= cut).sum())]
    )
    return LabelErrors(suspects=suspects, precision=precision, recall=recall, method=method)


def score_labels(
    labels: NDArray[np.int64], log_probabilities: NDArray[np.float32], neighbours: Neighbours
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Scores how probable it is that each label is wrong.

    Returns:
        The scores ``(N,)``, ``-inf`` where there is no prediction, and the most probable other class.
    """
    count, classes = log_probabilities.shape
    voters = min(VOTERS, max(1, count // (2 * classes)))
    indices, similarities = neighbours.indices[:, :voters], neighbours.similarities[:, :voters]
    weights = np.exp((similarities - similarities[:, :1]) / TEMPERATURE)
    weights *= indices.shape[1] / weights.sum(1, keepdims=True)
    votes = np.full((count, classes), PRIOR)
    np.add.at(votes, (np.arange(count)[:, None], labels[indices]), weights)
    evidence = np.log(votes) + log_probabilities
    of_given = evidence[np.arange(count), labels]
    evidence[np.arange(count), labels] = -np.inf
    scores = evidence.max(1) - of_given
    return np.where(np.isnan(scores), -np.inf, scores), np.nan_to_num(evidence, nan=-np.inf).argmax(1)


@dataclass(frozen=True)
class Cut:
    """The score from which on labels are listed.

    Attributes:
        score: the threshold.
        precision: estimated fraction of the images above it that are errors.
        recall: estimated fraction of the errors that are above it.
        method: how both were estimated, in a sentence.
    """

    score: float
    precision: float
    recall: float
    method: str


def find_cut(
    labels: NDArray[np.int64], neighbours: Neighbours, out_of_fold: OutOfFold, observer: Observer
) -> Cut:
    """Finds the score with the highest estimated F1 among planted errors."""
    # not a seed that somebody would draw errors with, to see whether they are found
    generator = np.random.default_rng(derive_seed("planted label errors"))
    count, classes = out_of_fold.log_probabilities.shape
    planted = ceil(PLANTED * count)
    rounds = min(MAX_ROUNDS, ceil(ENOUGH_PLANTED / planted))
    of_planted, of_others = [], []
    with observer.progress("planting label errors", rounds, "rounds") as tick:
        for _ in range(rounds):
            chosen = generator.choice(count, planted, replace=False)
            changed = labels.copy()
            changed[chosen] = (labels[chosen] + generator.integers(1, classes, planted)) % classes
            scores, _ = score_labels(changed, out_of_fold.with_labels(changed, generator), neighbours)
            of_planted.append(scores[chosen])
            of_others.append(np.delete(scores, chosen))
            tick(1)
    wrong, others = np.sort(np.concatenate(of_planted)), np.sort(np.concatenate(of_others))
    # a label that is more probable than all others is not listed
    thresholds = np.unique(np.clip(others, 0, None))
    # the most suspect one is, if it is suspect at all
    highest = score_labels(labels, out_of_fold.log_probabilities, neighbours)[0].max()
    thresholds = thresholds[thresholds <= max(highest, thresholds[0])]
    # one image more in each round: among few images, the smallest of many fractions would be too small
    above = (len(others) - np.searchsorted(others, thresholds) + rounds) / (len(others) + rounds)
    recall = (len(wrong) - np.searchsorted(wrong, thresholds) + 1) / (len(wrong) + 1)
    usable = recall >= min(MIN_RECALL, recall[0])
    errors = min(1.0, float((above[usable] / recall[usable]).min()))
    f1 = 2 * errors * recall / (above + errors)
    best = int(f1.argmax())
    return Cut(
        score=float(thresholds[best]),
        precision=min(1.0, float(errors * recall[best] / above[best])),
        recall=float(recall[best]),
        method=(
            f"{PLANTED:.0%} of the labels were changed at random and found again, {rounds} times "
            f"({len(wrong)} planted errors); about {errors:.1%} of the labels are estimated to be wrong, "
            "which counts correct ones that look wrong to the probe"
        ),
    )
