"""The photos of a page: samples, views, and examples with where the classifier looked."""

from __future__ import annotations

import hashlib
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from tlkit.data.images import Image, UnreadableImage, read_image
from tlkit.data.views import View, ViewReader
from tlkit.experiment.planning import training_views
from tlkit.experiment.record import ImageRow, PhaseRecord, RunRecord, SplitPredictions, find_image_files
from tlkit.inference.predictor import Predictor
from tlkit.interpret.attribution import explain
from tlkit.interpret.layers import find_layer, parse_channels, representative_layers
from tlkit.interpret.maximisation import REGULARIZATIONS, maximize
from tlkit.parts.source import Sample
from tlkit.plugins.registry import Registry
from tlkit.reporting.pictures import Album, Picture

T = TypeVar("T")

#: How many photos a page shows of each kind.
SAMPLES = 12
CLASSES = 24
VIEWS = 8
EXAMPLES = 6
CHANNELS = 3
#: Of the images that maximise a channel, in pixels: enough to see, and quickly made.
MAXIMISED = 96
MAXIMISING_STEPS = 24
WAYS = {"none": "without regularisation", "l2": "with L2 decay", "blur": "with Gaussian blur"}


@dataclass(frozen=True)
class Example:
    """A test image with what the classifier made of it.

    Attributes:
        photo: what the network was given.
        heat: where it looked for the class that it gave.
        id: the image's.
        truth: its class.
        predicted: the class that it was given.
        probability: of that class.
        remark: what another phase made of it, or nothing.
    """

    photo: Picture
    heat: Picture
    id: str
    truth: str
    predicted: str
    probability: float
    remark: str = ""


class Gallery:
    """Finds a run's images again, and makes pictures of them.

    Attributes:
        missing: why images cannot be shown, each reason once.
    """

    def __init__(self, record: RunRecord, album: Album, registry: Registry) -> None:
        self._record = record
        self._album = album
        self._registry = registry
        self._samples, self._source, problem = find_image_files(record.recipe, registry)
        self._rows = {row.id: row for row in record.images}
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self.missing: dict[str, None] = (
            {f"The run's images cannot be shown: {problem}": None} if problem else {}
        )

    def close(self) -> None:
        """Removes what was made for a look."""
        if self._folder is not None:
            self._folder.cleanup()

    def samples(self) -> list[Picture]:
        """Training images: of every class as many, or of some classes one each."""
        by_class: dict[str, list[ImageRow]] = defaultdict(list)
        for row in self._record.images:
            if row.split == "train" and row.label is not None:
                by_class[row.label].append(row)
        names = evenly(list(by_class), CLASSES)
        each = max(1, SAMPLES // max(1, len(names)))
        pictures: list[Picture] = []
        for name in names:
            for row in evenly(by_class[name], each):
                if (image := self._find(row.id)) is not None:
                    number = len(pictures) + 1
                    pixels = np.asarray(read_image(image.sample.path))
                    pictures.append(
                        self._album.photo(f"sample-{number}", f"A {name}: {row.id}", pixels, name)
                    )
        return pictures

    def views(self, phase: PhaseRecord, predictor: Predictor) -> list[Picture]:
        """One training image as the phase saw it, epoch after epoch."""
        plain = View(predictor.preprocess)
        planned = phase.phase
        if planned.views == "auto" and phase.plan is not None:
            planned = replace(planned, views=phase.plan["views"])
        views = training_views(self._record.recipe, planned, plain, self._registry)
        fresh = planned.views == "fresh"
        if len(views) == 1 and not fresh:
            return []
        row = next((row for row in self._record.images if row.split == "train"), None)
        image = self._find(row.id) if row else None
        if image is None:
            return []
        shown = min(VIEWS, len(phase.history))
        chosen = [views[0].drawn(epoch) for epoch in range(shown)] if fresh else list(views[:VIEWS])
        pictures = []
        for number, view in enumerate(chosen, 1):
            pixels = ViewReader().get(image, [view], remember=False)[0]
            what = "the plain image" if view.augmentation is None else "an augmented view"
            alt = f"{image.sample.id}: {what} in phase {phase.name}"
            pictures.append(self._album.photo(f"view-{phase.name}-{number}", alt, pixels))
        return pictures

    def examples(
        self,
        name: str,
        found: SplitPredictions,
        places: Iterable[int],
        predictor: Predictor,
        remarks: Mapping[int, str],
        tick: Callable[[int], object],
    ) -> list[Example]:
        """Test images by their places in `found`, with where the classifier looked."""
        examples: list[Example] = []
        for place in places:
            tick(1)
            image = self._find(found.ids[place])
            if image is None:
                continue
            predicted = predictor.classes[int(found.classes[place])]
            seen = explain(predictor, image.sample.path, label=predicted)
            number = len(examples) + 1
            said = f"{image.sample.id}, taken for {predicted}"
            photo = self._album.photo(
                f"{name}-{number}", f"What the network was given of {said}", seen.pixels
            )
            heat = self._album.photo(f"{name}-{number}-heat", f"{seen.method} of {said}", seen.overlay())
            truth = predictor.classes[int(found.labels[place])]
            examples.append(
                Example(
                    photo,
                    heat,
                    image.sample.id,
                    truth,
                    predicted,
                    float(found.confidence[place]),
                    remarks.get(place, ""),
                )
            )
        return examples

    def responses(self, predictor: Predictor, tick: Callable[[int], object]) -> dict[str, list[Picture]]:
        """By layer: images that maximise some of its channels, in each of the three ways."""
        shown: dict[str, list[Picture]] = {}
        for layer in representative_layers(predictor.module):
            channels = parse_channels(find_layer(predictor.module, layer), None, CHANNELS)
            listed = ", ".join(map(str, channels))
            for way in REGULARIZATIONS:
                made = maximize(
                    predictor.module,
                    predictor.preprocess,
                    layer,
                    channels,
                    regularization=way,
                    size=self._smallest(predictor),
                    steps=MAXIMISING_STEPS,
                )
                pixels = np.concatenate([*made.images], axis=1)
                alt = f"Images that maximise channels {listed} of layer {layer}, {WAYS[way]}"
                name = f"layer-{layer}-{way}"
                shown.setdefault(layer, []).append(
                    self._album.photo(name, alt, pixels, f"{WAYS[way]}: channels {listed}")
                )
                tick(1)
        return shown

    def _smallest(self, predictor: Predictor) -> int:
        """A small size where the network takes any, else its own."""
        own = predictor.preprocess.size
        if own <= MAXIMISED:
            return own
        try:
            with torch.inference_mode():
                device = next(predictor.module.parameters()).device
                predictor.module.features(torch.zeros(1, 3, MAXIMISED, MAXIMISED, device=device))
        except Exception:  # networks with a fixed size say so in many ways
            return own
        return MAXIMISED

    def _find(self, name: str) -> Image | None:
        """An image of the run, if it is still what it was."""
        row, sample = self._rows.get(name), self._samples.get(name)
        if row is None or sample is None:
            if self._source is not None:
                self._miss("Some images of the run are not in its source any more and cannot be shown.")
            return None
        try:
            sample = self._made(sample)
            content = sample.path.read_bytes()
            if hashlib.sha256(content).hexdigest() == row.sha256:
                read_image(sample.path)
                return Image(sample, row.sha256, row.width, row.height)
            self._miss("Some images of the run have been changed since and are not shown.")
        except (OSError, UnreadableImage):
            self._miss("Some images of the run cannot be read any more and are not shown.")
        return None

    def _made(self, sample: Sample) -> Sample:
        """The sample, its file made in a folder of the page's own where the source makes its images.

        A run may be a stranger's: what its recipe names is read, never written.
        """
        if self._source is None or self._source.make is None or sample.path.is_file():
            return sample
        self._folder = self._folder or tempfile.TemporaryDirectory()
        path = Path(self._folder.name) / hashlib.sha256(sample.id.encode()).hexdigest()
        path.write_bytes(self._source.make(sample))
        return replace(sample, path=path)

    def _miss(self, reason: str) -> None:
        self.missing[reason] = None


def surest_mistakes(found: SplitPredictions) -> list[int]:
    """Places of the wrong answers that the classifier was most sure of, surest first."""
    wrong = np.flatnonzero(~found.right)
    return _first(wrong, -found.confidence[wrong])


def least_sure(found: SplitPredictions) -> list[int]:
    """Places of the answers that it was least sure of."""
    return _first(np.arange(len(found.ids)), found.confidence)


def changed(before: SplitPredictions, after: SplitPredictions) -> tuple[list[int], list[int]]:
    """Places in `after` that only it has right, and that only `before` has right; surest first.

    Both must be about the same images.
    """
    order = {name: place for place, name in enumerate(before.ids)}
    was_right = before.right[[order[name] for name in after.ids]]
    gained = np.flatnonzero(after.right & ~was_right)
    lost = np.flatnonzero(~after.right & was_right)
    return _first(gained, -after.confidence[gained]), _first(lost, -after.confidence[lost])


def evenly(items: Sequence[T], count: int) -> list[T]:
    """`count` of the items, or all if there are fewer, at even distances."""
    if len(items) <= count:
        return list(items)
    return [items[place * len(items) // count] for place in range(count)]


def _first(places: NDArray[np.intp], by: NDArray[np.float32]) -> list[int]:
    chosen: list[int] = places[np.argsort(by, kind="stable")[:EXAMPLES]].tolist()
    return chosen
