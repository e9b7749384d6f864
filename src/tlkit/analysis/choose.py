"""Chooses the backbone that suits labelled images: by cross-validated probes on the features of each."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, NonNegativeFloat

from tlkit.analysis.features import LabelledImages, compute_features, read_labelled
from tlkit.analysis.images import TrainingImages
from tlkit.analysis.logme import logme
from tlkit.analysis.targets import recipe_for
from tlkit.errors import DataError, RecipeError, ReportError, UnreachableWeightsError
from tlkit.evaluation.metrics import TestScores, evaluate
from tlkit.evaluation.significance import McNemar, holm, mcnemar, paired_gain
from tlkit.experiment.backbones import BACKBONE
from tlkit.experiment.observer import Observer
from tlkit.inference.predictor import Predictor
from tlkit.model.classifier import Classifier
from tlkit.parts.backbone import Backbone
from tlkit.plugins.loader import load_registry
from tlkit.plugins.registry import Registry
from tlkit.recipe.recipe import Recipe
from tlkit.recipe.schema import Monitor
from tlkit.runtime.devices import choose_device
from tlkit.runtime.distributed import broadcast_from_main
from tlkit.runtime.timing import timed
from tlkit.utils.formatting import format_bytes, shortlist
from tlkit.utils.json_files import JsonModel, NonNegative, Proportion, read_json
from tlkit.utils.sequences import as_list

#: The backbones that are compared where none is named: those of them that are installed.
CANDIDATES = (BACKBONE, "efficientnet-lite0", "efficientnet-lite1", "efficientnet-lite2")
FOLDS = 5
FILE = "choice.json"
#: Prediction is timed on this many images.
TIMED_IMAGES = 32


class Candidate(JsonModel):
    """A backbone, how well a probe on its features does, and what it costs.

    Attributes:
        backbone: its name.
        scores: of the probe, out of fold.
        behind: how much more of the measure the chosen backbone reaches; 0 for that one.
        standard_error: of `behind`, from the differences image by image.
        test: McNemar's exact test of the chosen backbone against this one; None for the chosen one.
        p: the test's p-value, corrected for the number of backbones (Holm); None for the chosen one.
        logme: log evidence of the labels, for comparison; see `tlkit.analysis.logme`.
        seconds: duration of predicting an image, from the file to probabilities, as `tlkit predict` does.
        weight_bytes: size of its weights.
    """

    backbone: str
    scores: TestScores
    behind: float
    standard_error: NonNegativeFloat
    test: McNemar | None
    p: Proportion | None
    logme: float
    seconds: NonNegativeFloat
    weight_bytes: NonNegative

    def describe(self) -> str:
        """Says how good it is and what it costs."""
        low, high = self.scores.ci95
        return (
            f"{self.backbone}: accuracy {self.scores.accuracy:.3f} ({low:.3f}–{high:.3f}) out of fold, "
            f"{1000 * self.seconds:.0f} ms an image, {format_bytes(self.weight_bytes)}"
        )


class Choice(JsonModel):
    """Backbones side by side; the content of choice.json.

    Attributes:
        schema_version: version of the file's format; ``schema`` in JSON.
        name: what the images are called.
        images: how many were compared on: all that can be read and are not set aside for testing, equal files
            once.
        measure: what the backbones are compared by; balanced accuracy where the classes are unequal.
        candidates: the backbones, the best first.
        unreachable: names of those that were left out, since their weights cannot be had here.
        rejected: (id, reason) of each image that cannot be read.
    """

    schema_version: Literal[1] = Field(1, alias="schema")
    name: str
    images: NonNegative
    measure: Monitor
    candidates: Annotated[tuple[Candidate, ...], Field(min_length=1)]
    unreachable: tuple[str, ...]
    rejected: tuple[tuple[str, str], ...]

    @property
    def best(self) -> Candidate:
        """The chosen backbone: the one with the highest measure, of equal ones the one with less log loss."""
        return self.candidates[0]

    @property
    def cheaper(self) -> Candidate | None:
        """The fastest backbone that is faster than the chosen one and within one standard error of it."""
        within = [
            other
            for other in self.candidates[1:]
            if other.seconds < self.best.seconds and other.behind <= other.standard_error
        ]
        return min(within, key=lambda other: other.seconds, default=None)

    def describe(self) -> str:
        """Says which backbone is chosen and why, and which one would cost less."""
        measure = self.measure.replace("_", " ")
        equal = [other.backbone for other in self.candidates[1:] if not other.behind]
        text = (
            f"{shortlist([self.best.backbone, *equal])} have the highest {measure}; {self.best.backbone} has "
            "the lowest log loss of them"
            if equal
            else f"{self.best.backbone} has the highest {measure}"
        )
        if (cheaper := self.cheaper) is not None:
            share = cheaper.seconds / self.best.seconds
            text += (
                f"; {cheaper.backbone} is within one standard error of it ({100 * cheaper.behind:.1f} ± "
                f"{100 * cheaper.standard_error:.1f} points behind) and takes {100 * share:.0f}% of its time"
            )
        return f"{text}."


def read_choice(folder: Path) -> Choice | None:
    """Reads a folder's choice.json; returns None if there is none.

    Raises:
        ReportError: it cannot be read.
    """
    path = folder / FILE
    return read_json(path, Choice, ReportError) if path.is_file() else None


@dataclass(frozen=True)
class _Measured:
    """What is measured of a backbone, and its out-of-fold probabilities ``(N, classes)``."""

    backbone: str
    probabilities: NDArray[np.float64]
    logme: float
    seconds: float
    weight_bytes: int


def choose(
    target: Recipe | TrainingImages,
    labels: str | Iterable[object] | None = None,
    *,
    backbones: str | Sequence[str] = (),
    device: str | None = None,
    observer: Observer | None = None,
    registry: Registry | None = None,
) -> Choice:
    """Compares backbones by probes on their features of labelled images, and chooses one.

    The features that each backbone computes of the images are cached, and a run with one of them reads them.
    The probes are the linear ones of `tlkit.fit`, cross-validated on the same folds, with images of one group
    in the same fold.

    Args:
        target: labelled images as for `tlkit.fit`: a folder per class, a CSV file with columns `path` and
            `label`, a list of images, a `torch.utils.data.Dataset`, or a `datasets.Dataset`; or a recipe or a
            run folder.
        labels: of a list of images; None of all else.
        backbones: any names, ``local-dir:…`` and ``hf-hub:…`` included; `CANDIDATES` that are installed, and
            the recipe's own, unless given. Those whose weights cannot be had are left out.
        device: such as "cpu" or "cuda:1"; the best one unless given.
        observer: is shown the progress, and told of what is left out.
        registry: the parts to choose from; all that is installed unless given.

    Raises:
        UnreachableWeightsError: no backbone's weights can be had.
        TlkitError: the images or the backbones' names must be corrected first.
    """
    registry, observer = registry or load_registry(), observer or Observer()
    recipe = recipe_for(target, labels, observer)
    names = list(dict.fromkeys(as_list(backbones))) or _default_names(recipe, registry)
    problems = [problem for name in names for _, problem in registry.problems("backbone", name, {})]
    if problems:
        raise RecipeError([f"backbone: {problem}" for problem in problems], recipe="choose")
    labelled = _compared_images(read_labelled(recipe, registry, observer))
    labels = np.array([image.sample.label for image in labelled.images], np.int64)
    measured: list[_Measured] = []
    unreachable: dict[str, UnreachableWeightsError] = {}
    for name in names:
        try:
            measured.append(_measure(name, labelled, device, registry, observer))
        except UnreachableWeightsError as error:
            unreachable[name] = error
            observer.note(
                f"{name} is not compared: its weights are not on this machine and cannot be downloaded"
            )
    if not measured:
        raise next(iter(unreachable.values()))
    # of several processes, one decides
    candidates, measure = broadcast_from_main(_compare(measured, labels, labelled.classes))
    return Choice(
        name=labelled.name,
        images=len(labels),
        measure=measure,
        candidates=candidates,
        unreachable=tuple(unreachable),
        rejected=labelled.rejected,
    )


def _default_names(recipe: Recipe, registry: Registry) -> list[str]:
    """Returns the names of the recipe's last backbone, if it has one, and of `CANDIDATES` at hand."""
    own = [phase.backbone.name for phase in recipe.phases[-1:]]
    at_hand = {BACKBONE, *registry.names("backbone")}
    return list(dict.fromkeys([*own, *(name for name in CANDIDATES if name in at_hand)]))


def _compared_images(labelled: LabelledImages) -> LabelledImages:
    """Returns the images that are not set aside for testing, equal files once.

    Raises:
        DataError: they are too few to cross-validate.
    """
    chosen: dict[str, int] = {}
    for index, (image, split) in enumerate(zip(labelled.images, labelled.splits, strict=True)):
        if split != "test":
            chosen.setdefault(image.sha256, index)
    images = tuple(labelled.images[index] for index in chosen.values())
    splits = tuple(labelled.splits[index] for index in chosen.values())
    compared = replace(labelled, images=images, splits=splits)
    counts = _groups_per_class(compared)
    if counts.max() < 2 or (counts > 0).sum() < 2:
        what = "images" if len(np.unique(compared.groups)) == len(images) else "groups of images"
        listed = shortlist([f"{name} {count}" for name, count in zip(labelled.classes, counts, strict=True)])
        raise DataError(
            f"too few {what} to compare backbones on ({listed}): two classes are needed, and two different "
            f"{what} of one of them"
        )
    return compared


def _groups_per_class(labelled: LabelledImages) -> NDArray[np.int64]:
    """Returns how many groups of images each class has; images that belong to none are groups of one."""
    labels = np.array([image.sample.label for image in labelled.images], np.int64)
    classes = range(len(labelled.classes))
    return np.array([len(np.unique(labelled.groups[labels == label])) for label in classes])


def _measure(
    name: str, labelled: LabelledImages, device: str | None, registry: Registry, observer: Observer
) -> _Measured:
    features = compute_features(labelled, backbone=name, device=device, observer=observer, registry=registry)
    folds = min(FOLDS, int(_groups_per_class(labelled).max()))
    with observer.progress(f"probe on {name}", folds, "folds") as tick:
        probabilities = features.probes.out_of_fold(
            features.mean, features.labels, labelled.groups, folds=folds, kernel=False, tick=tick
        )
    network = features.probes.backbone
    return _Measured(
        name,
        probabilities,
        logme(features.mean, features.labels),
        _seconds_per_image(network, labelled, device, registry),
        sum(tensor.numel() * tensor.element_size() for tensor in network.module.state_dict().values()),
    )


def _seconds_per_image(
    backbone: Backbone, labelled: LabelledImages, device: str | None, registry: Registry
) -> float:
    """Measures prediction on a few of the images: reading, and the network for each and its mirror image."""
    classifier = Classifier(backbone, registry.make("head", "linear", {}, backbone, labelled.classes))
    predictor = Predictor(classifier, backbone.preprocess, labelled.classes, mirror=True, device=device)
    spread = np.linspace(0, len(labelled.images) - 1, min(TIMED_IMAGES, len(labelled.images))).astype(int)
    paths = [labelled.images[index].sample.path for index in spread]
    seconds, _ = timed(lambda: predictor.predict_proba(paths), choose_device(device))
    return seconds / len(paths)


def _compare(
    measured: Sequence[_Measured], labels: NDArray[np.int64], classes: Sequence[str]
) -> tuple[tuple[Candidate, ...], Monitor]:
    """Returns the candidates, the best first, and what they are compared by."""
    scores = {row.backbone: evaluate(row.probabilities, labels) for row in measured}
    unequal = scores[measured[0].backbone].describe_inequality(classes)
    measure: Monitor = "balanced_accuracy" if unequal else "accuracy"

    def rank(row: _Measured) -> tuple[float, float]:
        own = scores[row.backbone]
        return -(own.balanced_accuracy if unequal else own.accuracy), own.log_loss

    best, *others = sorted(measured, key=rank)
    correct = {row.backbone: row.probabilities.argmax(1) == labels for row in measured}
    tests = {row.backbone: mcnemar(correct[row.backbone], correct[best.backbone]) for row in others}
    corrected = dict(zip(tests, holm([test.p for test in tests.values()]), strict=True))
    candidates = []
    for row in (best, *others):
        behind, error = paired_gain(row.probabilities, best.probabilities, labels, measure)
        candidates.append(
            Candidate(
                backbone=row.backbone,
                scores=scores[row.backbone],
                behind=behind,
                standard_error=error,
                test=tests.get(row.backbone),
                p=corrected.get(row.backbone),
                logme=row.logme,
                seconds=row.seconds,
                weight_bytes=row.weight_bytes,
            )
        )
    return tuple(candidates), measure
