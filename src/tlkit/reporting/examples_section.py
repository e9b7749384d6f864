"""The report's section with test images, and where the classifier looked."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from numpy.typing import NDArray

from tlkit.experiment.record import SplitPredictions
from tlkit.inference.predictor import Predictor
from tlkit.interpret.attribution import explain
from tlkit.reporting.missing import Missing
from tlkit.reporting.pictures import Album, Picture
from tlkit.reporting.run_images import RunImages

#: How many examples of each kind are shown.
EXAMPLES = 6


@dataclass(frozen=True)
class Example:
    """An image and its prediction.

    Attributes:
        photo: the network's input.
        heat: where the network looked; None if no part of the image contributes to the class.
        id: the image's id.
        truth: its class.
        predicted: the class that was predicted.
        probability: of that class.
        explained: what the heat map is of, if that is not the prediction, and why there is none; or nothing.
        remark: another phase's prediction, or nothing.
    """

    photo: Picture
    heat: Picture | None
    id: str
    truth: str
    predicted: str
    probability: float
    explained: str
    remark: str

    @property
    def is_correct(self) -> bool:
        """Whether the prediction is the image's class."""
        return self.predicted == self.truth


@dataclass(frozen=True)
class ExampleGroup:
    """Examples of one kind.

    Attributes:
        title: its heading.
        text: a sentence below the heading.
        examples: the images.
    """

    title: str
    text: str
    examples: list[Example]


@dataclass(frozen=True)
class Selection:
    """Images to show.

    Attributes:
        kind: the beginning of the pictures' file names.
        title: the heading.
        text: a sentence below the heading.
        indices: into the predictions.
        remarks: texts by index.
    """

    kind: str
    title: str
    text: str
    indices: Sequence[int]
    remarks: Mapping[int, str] = field(default_factory=dict)


def make_examples_section(
    selections: Sequence[Selection],
    predictions: SplitPredictions,
    predictor: Predictor,
    images: RunImages,
    album: Album,
    missing: Missing,
    tick: Callable[[int], object],
    *,
    out_of_fold: bool,
) -> list[ExampleGroup]:
    """Makes the groups of examples that are not empty.

    Args:
        selections: the images to show.
        predictions: what was predicted for them.
        predictor: the classifier.
        images: the run's images.
        album: where pictures go.
        missing: is told which groups cannot be made.
        tick: called with 1 for each image.
        out_of_fold: whether the predictions are those of other models, which were not trained on the image.
    """
    groups = []
    for selection in selections:
        draw = partial(
            make_examples, selection, predictions, predictor, images, album, tick, out_of_fold=out_of_fold
        )
        examples = missing.attempt(f"examples ({selection.kind})", draw)
        if examples:
            groups.append(ExampleGroup(selection.title, selection.text, examples))
    return groups


def select_examples(phase: str, tests: Mapping[str, SplitPredictions]) -> list[Selection]:
    """Selects images that a phase predicts, and those on which the phase before it differs."""
    predictions = tests[phase]
    selections = [
        Selection(
            "mistake",
            "The most confident mistakes",
            "Wrong predictions with the highest confidence.",
            most_confident_mistakes(predictions),
        ),
        Selection(
            "unsure",
            "The least confident predictions",
            "Predictions, correct or wrong, with the lowest confidence.",
            least_confident(predictions),
        ),
    ]
    others = [name for name in tests if name != phase]
    if others:
        gained, lost = changed(tests[others[-1]], predictions)
        remarks = dict.fromkeys(gained, f"{others[-1]} is wrong")
        remarks |= dict.fromkeys(lost, f"{others[-1]} is correct")
        title = "Where two phases differ"
        text = "Images that only one of the last two phases predicts correctly."
        selections.append(Selection("changed", title, text, [*gained, *lost], remarks))
    return selections


def make_examples(
    selection: Selection,
    predictions: SplitPredictions,
    predictor: Predictor,
    images: RunImages,
    album: Album,
    tick: Callable[[int], object],
    *,
    out_of_fold: bool,
) -> list[Example]:
    """Makes the examples of a selection; images that cannot be found are skipped.

    The models of out-of-fold predictions are not kept. The classifier, which was trained on these images, is
    explained by its own prediction instead, which is named.
    """
    examples: list[Example] = []
    for index in selection.indices:
        tick(1)
        image = images.find(predictions.ids[index])
        if image is None:
            continue
        predicted = predictor.classes[int(predictions.predicted[index])]
        label, explained = predicted, ""
        if out_of_fold:
            (probabilities,) = predictor.predict_proba([image.sample.path])
            label = predictor.classes[int(probabilities.argmax())]
            explained = f"The final model, trained on it: {label}, {probabilities.max():.3f}"
        attribution = explain(predictor, image.sample.path, label=label)
        if attribution.is_blank:
            reason = f"no part of the image contributes to {label} in {attribution.method}"
            explained = f"{explained}; no map: {reason}".removeprefix("; ")
        file = f"{selection.kind}-{len(examples) + 1}"
        name = f"{image.sample.id}, predicted as {predicted}"
        photo = album.photo(file, f"The network's input for {name}", attribution.pixels)
        heat = None
        if not attribution.is_blank:
            alt = f"{attribution.method} for {label} of {image.sample.id}"
            heat = album.photo(f"{file}-heat", alt, attribution.overlay())
        examples.append(
            Example(
                photo,
                heat,
                id=image.sample.id,
                truth=predictor.classes[int(predictions.labels[index])],
                predicted=predicted,
                probability=float(predictions.confidence[index]),
                explained=explained,
                remark=selection.remarks.get(index, ""),
            )
        )
    return examples


def most_confident_mistakes(predictions: SplitPredictions) -> list[int]:
    """Returns the indices of wrong predictions, highest confidence first."""
    wrong = np.flatnonzero(~predictions.correct)
    return _first(wrong, -predictions.confidence[wrong])


def least_confident(predictions: SplitPredictions) -> list[int]:
    """Returns the indices of the predictions with the lowest confidence, lowest first."""
    return _first(np.arange(len(predictions.ids)), predictions.confidence)


def changed(before: SplitPredictions, after: SplitPredictions) -> tuple[list[int], list[int]]:
    """Finds the images that only one of two phases predicts correctly.

    Args:
        before: a phase's predictions.
        after: another phase's predictions of the same images.

    Returns:
        Indices into `after`, highest confidence first: where only `after` is correct, and where only `before`
        is.
    """
    index_before = {image_id: index for index, image_id in enumerate(before.ids)}
    correct_before = before.correct[[index_before[image_id] for image_id in after.ids]]
    gained = np.flatnonzero(after.correct & ~correct_before)
    lost = np.flatnonzero(~after.correct & correct_before)
    return _first(gained, -after.confidence[gained]), _first(lost, -after.confidence[lost])


def _first(indices: NDArray[np.intp], keys: NDArray[np.float32]) -> list[int]:
    first: list[int] = indices[np.argsort(keys, kind="stable")[:EXAMPLES]].tolist()
    return first
