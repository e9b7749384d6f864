"""Predicts with a trained classifier: labels, probabilities, features and scores for any images."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tlkit.data.images import UnreadableImage
from tlkit.data.prefetch import prefetch
from tlkit.data.views import Pixels
from tlkit.errors import DataError, RunFolderError, close_matches
from tlkit.evaluation.calibration import probabilities
from tlkit.evaluation.metrics import baselines, evaluate, per_class, rejected
from tlkit.inference.exported import ExportedDetector, OnnxNetwork
from tlkit.inference.pixels import ImageLike, Images, as_images, read_pixels
from tlkit.inference.prediction import Evaluation, Prediction, Predictions, Represented, find_mistakes
from tlkit.parts.preprocess import Preprocess
from tlkit.runtime.process import keep_freed_memory
from tlkit.utils.formatting import bulleted, shortlist
from tlkit.utils.sequences import as_list, batched

if TYPE_CHECKING:
    from tlkit.inference.torch_network import TorchNetwork
    from tlkit.model.classifier import Classifier
    from tlkit.model.unknown import UnknownDetector
    from tlkit.runtime.devices import Precision

#: A network's outputs, with a row per image.
Outputs = tuple[NDArray[np.float32], ...]
#: The names of a batch's images, and why each of them could not be read.
Listed = tuple[list[str], list[str | None]]
#: A method of a network: batches of pixels to outputs; see `TorchNetwork`.
Computation = Callable[[Iterable[tuple[Listed, Sequence[Pixels]]]], Iterable[tuple[Listed, Outputs]]]

#: The label of an image that belongs to none of the classes.
UNKNOWN = "unknown"
#: The label of an image whose confidence is below `Predictor.reject_below`.
UNCLASSIFIED = "unclassified"
#: Batches that are read while one is computed.
PREFETCHED = 2
#: How many names an error lists.
SHOWN = 20


@dataclass(frozen=True, slots=True)
class _Batch:
    """Images' names, why each could not be read, and the network's outputs for the others."""

    names: list[str]
    errors: list[str | None]
    outputs: Outputs


@dataclass(frozen=True, slots=True)
class Answers:
    """Probabilities ``(N, classes)``, and novelty ``(N,)`` where it is computed."""

    probabilities: NDArray[np.float64]
    novelty: NDArray[np.float32] | None


class Predictor:
    """A trained classifier, ready for images; see `tlkit.load`.

    It computes in float32 unless told otherwise, whatever it was trained in, so that its answers are the same
    everywhere. It predicts with a copy of the network in which batch norms are folded into convolutions.

    Attributes:
        preprocess: from a decoded image to the network's pixels.
        classes: names, in the order of logits and probabilities.
        temperature: logits are divided by it before the softmax.
        reject_below: the confidence below which an image stays unclassified, or None.
        unknown: tells which images belong to none of the classes; None: nothing is called unknown.
        batch: number of images that are computed together.
    """

    def __init__(
        self,
        network: Classifier | OnnxNetwork,
        preprocess: Preprocess,
        classes: Sequence[str],
        *,
        temperature: float = 1.0,
        reject_below: float | None = None,
        mirror: bool = False,
        unknown: UnknownDetector | None = None,
        device: str | None = None,
        precision: Precision = "float32",
    ) -> None:
        keep_freed_memory()
        self.preprocess = preprocess
        self.classes = tuple(classes)
        self.temperature = temperature
        self.reject_below = reject_below
        self._mirror = mirror
        self.unknown: UnknownDetector | ExportedDetector | None = unknown
        self._network: OnnxNetwork | TorchNetwork
        if isinstance(network, OnnxNetwork):
            self._network, self.unknown = network, network.detector
        else:
            from tlkit.inference.torch_network import TorchNetwork

            self._network = TorchNetwork(
                network, preprocess, unknown, mirror=mirror, device=device, precision=precision
            )
        self.batch = self._network.batch

    def __repr__(self) -> str:
        """Names the classes."""
        return f"{type(self).__name__}({len(self.classes)} classes: {shortlist(self.classes)})"

    @property
    def mirror(self) -> bool:
        """Whether logits are the mean over an image and its mirror image."""
        return self._mirror

    @property
    def module(self) -> Classifier:
        """The network in evaluation mode: normalised images ``(B, 3, H, W)`` to logits ``(B, classes)``.

        Predictions do not follow if it is changed.

        Raises:
            RunFolderError: it is an exported ONNX file's, whose layers torch does not know.
        """
        return self._torch_network.module

    @property
    def _torch_network(self) -> TorchNetwork:
        if isinstance(self._network, OnnxNetwork):
            raise RunFolderError(
                "an exported ONNX file gives predictions alone: what looks into the network takes the model "
                "folder or run folder that it was exported from"
            )
        return self._network

    def predict(self, images: Images) -> Predictions:
        """Predicts labels and probabilities.

        Args:
            images: files, Pillow images and uint8 arrays, in any mixture, or a single one; or a folder, with
                all folders below it.

        Raises:
            DataError: some cannot be read; all of these are listed.
        """
        answers = self._answers(self._run_all(images, self._network.predict))
        return Predictions(self._labels(answers), answers.probabilities)

    def predict_proba(
        self, images: Images, *, tick: Callable[[int], object] = lambda _: None
    ) -> NDArray[np.float64]:
        """Predicts probabilities, ``(N, classes)``; see `predict`.

        Args:
            images: as for `predict`.
            tick: called with the number of images done since.
        """
        return self._answers(self._run_all(images, self._network.predict, tick)).probabilities

    def label_indices(self, labels: Sequence[str]) -> NDArray[np.int64]:
        """Returns the position of each label among the classes, ``(N,)``.

        Raises:
            DataError: a label is not a class of this classifier.
        """
        unknown = sorted(set(labels) - set(self.classes))
        if unknown:
            hints = [f"{name!r}{close_matches(name, self.classes)}" for name in unknown[:SHOWN]]
            raise DataError(
                f"the classifier does not know {', '.join(hints)}; it knows {', '.join(self.classes[:SHOWN])}"
            )
        indices = {name: index for index, name in enumerate(self.classes)}
        return np.array([indices[label] for label in labels], np.int64)

    def features(self, images: Images) -> NDArray[np.float32]:
        """Computes the backbone's features, ``(N, C, h, w)``, ``(N, N', C)`` or ``(N, C)``; see `predict`."""
        (features,) = self._run_all(images, self._torch_network.features)
        return features

    def represent(self, images: Images, *, tick: Callable[[int], object] = lambda _: None) -> Represented:
        """Computes pooled features and probabilities in one pass.

        Args:
            images: as for `predict`; those that cannot be read are listed.
            tick: called with the number of images done since.
        """
        names: list[tuple[str, str | None]] = []
        features: list[NDArray[np.float32]] = []
        logits = [np.empty((0, len(self.classes)), np.float32)]
        for batch in self._batches(images, self._torch_network.represent):
            names += zip(batch.names, batch.errors, strict=True)
            if batch.outputs:
                features.append(batch.outputs[0])
                logits.append(batch.outputs[1])
            tick(len(batch.names))
        return Represented(
            tuple(name for name, error in names if error is None),
            np.concatenate(features) if features else np.empty((0, 0), np.float32),
            self.to_probabilities(np.concatenate(logits)),
            tuple((name, error) for name, error in names if error is not None),
        )

    def stream(self, images: Images, *, top: int = 1) -> Iterator[Prediction]:
        """Yields predictions one by one, in order; memory does not grow with the number of images.

        Args:
            images: as for `predict`; an image that cannot be read is reported in its prediction.
            top: how many classes each prediction lists.
        """
        for batch in self._batches(images, self._network.predict):
            answered: Iterator[Prediction] = iter(())
            if batch.outputs:
                names = [name for name, error in zip(batch.names, batch.errors, strict=True) if error is None]
                answered = self._predictions(names, self._answers(batch.outputs), top)
            for name, error in zip(batch.names, batch.errors, strict=True):
                yield next(answered) if error is None else Prediction(name, None, None, (), error)

    def predict_pixels(self, pixels: Sequence[Pixels], *, top: int = 1) -> list[Prediction]:
        """Predicts images that `preprocess` has been applied to; they are named by their position.

        Args:
            pixels: uint8 RGB ``(size, size, 3)`` each, no more than memory holds at once.
            top: how many classes each prediction lists.
        """
        if not pixels:
            return []
        ((_, outputs),) = self._network.predict([(None, pixels)])
        answers = self._answers(_finite(outputs))
        return list(self._predictions([str(index) for index in range(len(pixels))], answers, top))

    def evaluate(
        self,
        images: Images,
        labels: str | Sequence[str],
        *,
        tick: Callable[[int], object] = lambda _: None,
    ) -> Evaluation:
        """Computes the classifier's scores on labelled images.

        Args:
            images: as for `predict`.
            labels: each image's class name.
            tick: called with the number of images done since.

        Raises:
            DataError: a label is not a class of this classifier, or images cannot be read.
        """
        listed = list(as_images(images))
        truth = self.truth(labels, len(listed))
        return self.score(listed, truth, self._answers(self._run_all(listed, self._network.predict, tick)))

    def truth(self, labels: str | Sequence[str], images: int) -> NDArray[np.int64]:
        """Returns the classes of so many labelled images, ``(N,)``.

        Raises:
            DataError: a label is not a class of this classifier, or there is another number of them.
        """
        labels = as_list(labels)
        truth = self.label_indices(labels)
        if len(labels) != images or not labels:
            raise DataError(f"there are {images} images and {len(labels)} labels")
        return truth

    def score(self, images: Sequence[ImageLike], truth: NDArray[np.int64], answers: Answers) -> Evaluation:
        """Computes scores.

        Args:
            images: the images, in order.
            truth: their classes, from `truth`.
            answers: what the network says of them.
        """
        rows, unknown = answers.probabilities, self._is_unknown(answers)
        unclassified = None
        if self.reject_below is not None:
            unclassified = rejected(rows.max(1), rows.argmax(1) == truth, self.reject_below)
        class_scores = per_class(rows, truth, self.classes)
        counts = {name: scores.n for name, scores in class_scores.items()}
        return Evaluation(
            **evaluate(rows, truth).model_dump(),
            per_class=class_scores,
            baselines=baselines(counts, max(counts, key=counts.__getitem__)),
            rejected=unclassified,
            unknown=None if self.unknown is None else int(unknown.sum()),
            mistakes=find_mistakes(list(map(_name, count(), images)), rows, truth, self.classes),
        )

    def _answers(self, outputs: Outputs) -> Answers:
        logits, *novelty = outputs
        return Answers(self.to_probabilities(logits), novelty[0] if novelty else None)

    def to_probabilities(self, logits: NDArray[np.float32]) -> NDArray[np.float64]:
        """Maps logits to probabilities, ``(N, classes)``."""
        return probabilities(logits.astype(np.float64), self.temperature)

    def _is_unknown(self, answers: Answers) -> NDArray[np.bool_]:
        """Returns which images belong to none of the classes, ``(N,)``."""
        if self.unknown is None or answers.novelty is None:
            return np.zeros(len(answers.probabilities), np.bool_)
        return answers.novelty > self.unknown.threshold

    def _labels(self, answers: Answers) -> list[str]:
        return [
            UNKNOWN if unknown else self._class_of(row)
            for row, unknown in zip(answers.probabilities, self._is_unknown(answers), strict=True)
        ]

    def _class_of(self, row: NDArray[np.float64]) -> str:
        best = int(row.argmax())
        rejected = self.reject_below is not None and row[best] < self.reject_below
        return UNCLASSIFIED if rejected else self.classes[best]

    def _predictions(self, names: Sequence[str], answers: Answers, top: int) -> Iterator[Prediction]:
        """Yields the predictions for images that could be read."""
        labels, novelty = self._labels(answers), answers.novelty
        for index, (name, label, row) in enumerate(zip(names, labels, answers.probabilities, strict=True)):
            order = np.argsort(-row, kind="stable")[:top]
            best = tuple((self.classes[column], float(row[column])) for column in order)
            how_new = None if novelty is None else float(novelty[index])
            yield Prediction(name, label, float(row.max()), best, novelty=how_new)

    def _run_all(
        self,
        images: Images,
        compute: Computation,
        tick: Callable[[int], object] = lambda _: None,
    ) -> Outputs:
        """Returns a network's outputs for all images; raises DataError if any cannot be read."""
        failures: list[str] = []
        outputs: list[Outputs] = []
        for batch in self._batches(images, compute):
            failures += [
                f"{name}: {error}" for name, error in zip(batch.names, batch.errors, strict=True) if error
            ]
            if batch.outputs:
                outputs.append(batch.outputs)
            tick(len(batch.names))
        check_readable(failures)
        if not outputs:
            raise DataError("there are no images")
        return tuple(np.concatenate(parts) for parts in zip(*outputs, strict=True))

    def _batches(self, images: Images, compute: Computation) -> Iterator[_Batch]:
        """Reads images ahead in threads, and runs the network on those that can be read."""
        for (names, errors), outputs in compute(self._read(images)):
            yield _Batch(names, errors, _finite(outputs))

    def _read(self, images: Images) -> Iterator[tuple[Listed, Sequence[Pixels]]]:
        """Yields each batch's names and errors, and the pixels of the images that can be read."""
        tasks = (
            (
                [_name(index, image) for index, image in batch],
                [partial(read_pixels, image, self.preprocess) for _, image in batch],
            )
            for batch in batched(enumerate(as_images(images)), self.batch)
        )
        for names, futures in prefetch(tasks, PREFETCHED):
            errors: list[str | None] = []
            pixels: list[Pixels] = []
            for future in futures:
                try:
                    pixels.append(future.result())
                    errors.append(None)
                except UnreadableImage as error:
                    errors.append(str(error))
            yield (names, errors), pixels


def check_readable(failures: Sequence[str]) -> None:
    """Raises DataError, which lists images with the reasons why they cannot be read, if there are any."""
    if failures:
        raise DataError(bulleted("images cannot be read: repair or remove them", failures, SHOWN))


def _finite(outputs: Outputs) -> Outputs:
    """Returns outputs; raises DataError if they are not finite numbers."""
    if not all(np.isfinite(output).all() for output in outputs):
        raise DataError("the classifier's outputs are not finite numbers: train it again")
    return outputs


def _name(index: int, image: ImageLike) -> str:
    return str(image) if isinstance(image, str | Path) else f"image {index}"
