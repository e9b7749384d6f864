"""Estimates how many more images are worth taking, from cached features."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import NormalDist
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from tlkit.analysis.features import DatasetFeatures, LabelledImages, target_features
from tlkit.analysis.images import TrainingImages
from tlkit.analysis.learning import Learner, Measurement
from tlkit.analysis.power_law import COVERAGE, PowerLaw, fit_power_law
from tlkit.errors import DataError, ReportError
from tlkit.experiment.observer import Observer
from tlkit.parts.backbone import WeightsOrigin
from tlkit.plugins.registry import Registry
from tlkit.utils.formatting import plural
from tlkit.utils.json_files import JsonModel, NonNegative, Proportion, read_json

#: Nothing is said about more images than the images at hand times this.
REACH = 4
#: Numbers of images that the line of a chart is drawn through.
LINE_POINTS = 33
#: Numbers of images that are tried to reach a goal.
GOAL_STEPS = 400
#: How probable a goal has to be to count as likely, and as nearly certain.
LIKELY, NEARLY_CERTAIN = 0.5, 0.9
#: At most so many classes, those with the lowest recall, are halved in turn; the level of the test.
CLASSES_TRIED, SIGNIFICANT = 10, 0.05
#: Training images per class that are the fewest for a curve.
FEWEST = 6
FILE = "curve.json"


class CurvePoint(JsonModel):
    """The accuracy with a number of training images, with its 90% interval.

    Attributes:
        images: the number of training images.
        accuracy: measured, or the median of what the power law expects.
        low: the interval's lower end.
        high: its upper end.
    """

    images: NonNegative
    accuracy: Proportion
    low: Proportion
    high: Proportion

    def describe(self) -> str:
        """Returns the accuracy with its interval, such as ``0.931 (0.912–0.944)``."""
        return f"{self.accuracy:.3f} ({self.low:.3f}–{self.high:.3f})"


class Goal(JsonModel):
    """When an accuracy is reached.

    Attributes:
        accuracy: the goal.
        probability: of reaching it with 4 times the images.
        likely_at: number of images from which on it is more probable than not; None: more than 4 times the
            images, about which nothing can be said.
        nearly_certain_at: number of images from which on it has a probability of 0.9, or None.
    """

    accuracy: Proportion
    probability: Proportion
    likely_at: NonNegative | None
    nearly_certain_at: NonNegative | None


class ClassGain(JsonModel):
    """What the images of a class contribute.

    Attributes:
        name: the class.
        images: its number of training images.
        lost: by how much the accuracy falls without half of them.
        p: probability that each image's costing so much more than those of the other classes is chance,
            corrected for the number of classes that were tried.
    """

    name: str
    images: NonNegative
    lost: float
    p: Proportion


class LearningCurve(JsonModel):
    """The accuracy of a linear probe as a function of the number of images; the content of curve.json.

    Attributes:
        schema_version: version of the file's format; ``schema`` in JSON.
        name: what the images are called.
        backbone: the backbone's name.
        weights: where its weights come from.
        classes: number of training images of each class.
        images: number of training images at hand.
        measured_on: "test": the source's own test images; "folds": images out of fold.
        tested: how many images that is.
        draws: how many subsets of each size a probe was fitted to.
        measured: a point for each size, the smallest first.
        expected: with the images at hand, with 2 times and with 4 times as many.
        line: the power law, from the smallest size to 4 times the images.
        goal: when an accuracy is reached, if one was asked for.
        gains: of each class that was tried, what its images contribute, most per image first.
    """

    schema_version: Literal[1] = Field(1, alias="schema")
    name: str
    backbone: str
    weights: WeightsOrigin | None
    classes: dict[str, NonNegative]
    images: NonNegative
    measured_on: Literal["test", "folds"]
    tested: NonNegative
    draws: NonNegative
    measured: tuple[CurvePoint, ...]
    expected: tuple[CurvePoint, ...]
    line: tuple[CurvePoint, ...]
    goal: Goal | None
    gains: tuple[ClassGain, ...]

    @property
    def helps_most(self) -> ClassGain | None:
        """The class whose images contribute most, each; None: not significantly more than the others'."""
        return self.gains[0] if self.gains and self.gains[0].p < SIGNIFICANT else None

    def sentences(self) -> list[str]:
        """Describes what more images will bring, in sentences."""
        now, double, largest = self.expected
        where = f"{self.tested:,} {'test images' if self.measured_on == 'test' else 'images out of fold'}"
        sentences = [
            f"A linear probe on {self.backbone}, fitted to all {self.images:,} images, is expected to reach "
            f"{now.describe()}; measured on {where}.",
            f"With 2 times the images ({double.images:,}) expect {double.describe()}, with {REACH} times "
            f"({largest.images:,}) {largest.describe()}. About more than that, nothing can be said.",
        ]
        if self.goal is not None:
            sentences.append(self._describe_goal(self.goal))
        if gain := self.helps_most:
            sentences.append(
                f"More images of `{gain.name}` help most: without half of its {gain.images:,}, the accuracy "
                f"falls by {100 * gain.lost:.1f} points."
            )
        elif self.gains:
            sentences.append(
                "No class stands out whose images would help significantly more than those of the others."
            )
        return sentences

    def _describe_goal(self, goal: Goal) -> str:
        accuracy, largest = f"{goal.accuracy:g}", self.expected[-1].images
        if goal.likely_at is None:
            probability = "below 0.01" if goal.probability < 0.01 else f"{goal.probability:.2f}"
            return (
                f"{accuracy} is not likely with {REACH} times the images ({largest:,}): its probability is "
                f"{probability}. Better images, labels or another backbone may reach it."
            )
        if goal.likely_at <= self.images:
            likely = f"{accuracy} is likely with the images at hand"
        else:
            likely = f"{accuracy} is likely at {_rounded(goal.likely_at):,} images"
        if goal.nearly_certain_at is None:
            return f"{likely}, but not nearly certain (probability 0.9) even with {REACH} times the images."
        if goal.nearly_certain_at <= self.images:
            return f"{likely}, and nearly certain (probability 0.9)."
        return f"{likely}, and nearly certain (probability 0.9) at {_rounded(goal.nearly_certain_at):,}."


def read_curve(folder: Path) -> LearningCurve | None:
    """Reads a folder's curve.json; returns None if there is none.

    Raises:
        ReportError: it cannot be read.
    """
    file = folder / FILE
    return read_json(file, LearningCurve, ReportError) if file.is_file() else None


def curve(
    target: TrainingImages,
    labels: str | Iterable[object] | None = None,
    *,
    goal: float | None = None,
    backbone: str | None = None,
    weights: str | None = None,
    device: str | None = None,
    observer: Observer | None = None,
    registry: Registry | None = None,
) -> LearningCurve:
    """Measures accuracy against the number of images, and extrapolates it to 4 times the images at hand.

    A linear probe is fitted to nested, stratified subsets of the images' cached features, several draws of
    each size, and tested on the source's test images or, where it has none, by cross-validation, with images
    of one group in the same fold. Files with equal bytes count once.

    Args:
        target: labelled images as for `tlkit.fit`: a folder per class, a CSV file with columns `path` and
            `label`, a list of images, a `torch.utils.data.Dataset`, or a `datasets.Dataset`; or a recipe or a
            run folder.
        labels: of a list of images; None of all else.
        goal: an accuracy; the recipe's own unless given.
        backbone: in place of the recipe's last phase's, or of the one that `tlkit.fit` uses by default.
        weights: "pretrained", "none", or a .safetensors file; the backbone's default unless given.
        device: such as "cpu" or "cuda:1"; the best one unless given.
        observer: is shown the progress.
        registry: the parts to choose from; all that is installed unless given.

    Raises:
        TlkitError: the images, the recipe or the backbone must be corrected first.
    """
    observer = observer or Observer()
    features = target_features(
        target,
        labels,
        backbone=backbone,
        weights=weights,
        device=device,
        observer=observer,
        registry=registry,
    )
    goal = features.labelled.recipe.goal if goal is None else goal
    return measure_curve(features, goal=goal, observer=observer)


def measure_curve(
    features: DatasetFeatures, *, goal: float | None = None, observer: Observer | None = None
) -> LearningCurve:
    """Measures and extrapolates the learning curve of images with features; see `curve`.

    Raises:
        DataError: there are too few images.
    """
    observer = observer or Observer()
    rows = distinct_images(features.labelled)
    is_test = np.array([features.labelled.splits[row] == "test" for row in rows])
    labels, names = features.labels[rows], features.labelled.classes
    counts = np.bincount(labels[~is_test], minlength=len(names))
    images, has_test = int(counts.sum()), bool(is_test.any())
    if (populated := np.count_nonzero(counts)) < 2 or images < FEWEST * populated:
        raise DataError(
            f"{plural(images, 'training image')} in {populated} classes: a learning curve needs two classes, "
            f"and {FEWEST} images of each on average"
        )
    groups = features.labelled.groups[rows]
    learner = Learner(features.mean[rows], labels, groups, is_test if has_test else None)
    with observer.progress("measuring subsets", learner.steps, "fits") as tick:
        measurement = learner.measure(tick)
    law = fit_power_law(measurement.images, measurement.errors, measurement.covariance)
    line = np.geomspace(measurement.images[-1], REACH * images, LINE_POINTS)
    return LearningCurve(
        name=features.labelled.name,
        backbone=features.backbone,
        weights=features.weights,
        classes=dict(zip(names, counts.tolist(), strict=True)),
        images=images,
        measured_on="test" if has_test else "folds",
        tested=len(measurement.tested),
        draws=measurement.fits,
        measured=_measured_points(measurement),
        expected=tuple(_expected(law, times * images) for times in (1, 2, REACH)),
        line=tuple(_expected(law, round(count)) for count in line),
        goal=None if goal is None else _goal(law, goal, images),
        gains=_class_gains(learner, measurement, names, counts, observer),
    )


def distinct_images(labelled: LabelledImages) -> NDArray[np.int64]:
    """Returns the rows of the images that the source uses, one of those with equal bytes.

    A test image comes before its copies in other splits, so that no training image is tested on. Of a recipe,
    images that its run leaves out are left out; of a folder without splits, none is.
    """
    splits = labelled.splits
    rows = [row for row, split in enumerate(splits) if split is not None or not any(splits)]
    rows.sort(key=lambda row: splits[row] != "test")
    first: dict[str, int] = {}
    for row in rows:
        first.setdefault(labelled.images[row].sha256, row)
    return np.array(sorted(first.values()))


def _measured_points(measurement: Measurement) -> tuple[CurvePoint, ...]:
    """Returns a point for each size, the smallest first."""
    margins = NormalDist().inv_cdf((1 + COVERAGE) / 2) * np.sqrt(measurement.covariance.diagonal())
    rows = zip(measurement.images.tolist(), 1 - measurement.errors, margins, strict=True)
    return tuple(
        CurvePoint(
            images=images,
            accuracy=float(accuracy),
            low=max(0.0, float(accuracy - margin)),
            high=min(1.0, float(accuracy + margin)),
        )
        for images, accuracy, margin in reversed(list(rows))
    )


def _expected(law: PowerLaw, images: int) -> CurvePoint:
    accuracy, low, high = law.interval(images)
    return CurvePoint(images=images, accuracy=accuracy, low=low, high=high)


def _goal(law: PowerLaw, accuracy: float, images: int) -> Goal:
    """Finds the numbers of images, within reach, from which on a goal is likely, and nearly certain."""
    numbers = np.geomspace(images, REACH * images, GOAL_STEPS).round().astype(int).tolist()
    probabilities = [law.probability(accuracy, number) for number in numbers]

    def first(probability: float) -> int | None:
        reached = (
            number for number, value in zip(numbers, probabilities, strict=True) if value >= probability
        )
        return next(reached, None)

    return Goal(
        accuracy=accuracy,
        probability=min(1.0, probabilities[-1]),
        likely_at=first(LIKELY),
        nearly_certain_at=first(NEARLY_CERTAIN),
    )


def _class_gains(
    learner: Learner,
    measurement: Measurement,
    names: Sequence[str],
    counts: NDArray[np.int64],
    observer: Observer,
) -> tuple[ClassGain, ...]:
    """Leaves out half of the images of each class in turn, beginning with the class of the lowest recall.

    What each image left out costs is compared with the mean of the other classes, on the same images.
    """
    of_tested = learner.labels[measurement.tested]
    recalls = {
        label: measurement.correct[0][:, of_tested == label].mean()
        for label in np.unique(of_tested).tolist()
        if counts[learner.classes[label]]
    }
    tried = sorted(recalls, key=lambda label: (recalls[label], label))[:CLASSES_TRIED]
    if len(tried) < 2:
        return ()
    with observer.progress("leaving out half of each class", len(tried), "classes") as tick:
        losses = []
        for label in tried:
            losses.append(learner.lost_without_half(label)[measurement.tested])
            tick(1)
    lost, left_out = np.stack(losses), counts[learner.classes[tried]] / 2
    per_image = lost / left_out[:, None]
    # a class's excess over the mean of the others
    excess = (per_image - per_image.mean(0)) * len(tried) / (len(tried) - 1)
    errors = excess.std(1, ddof=1) / np.sqrt(excess.shape[1])
    gains = []
    for index in np.argsort(-per_image.mean(1), kind="stable"):
        score = excess[index].mean() / errors[index] if errors[index] else 0.0
        label = learner.classes[tried[index]]
        gains.append(
            ClassGain(
                name=names[label],
                images=int(counts[label]),
                lost=float(lost[index].mean()),
                p=min(1.0, len(tried) * NormalDist().cdf(-score)),
            )
        )
    return tuple(gains)


def _rounded(count: int) -> int:
    """Rounds a number of images up to two digits, as nobody plans with more."""
    unit = int(10 ** max(0, len(str(count)) - 2))
    return -(-count // unit) * unit
