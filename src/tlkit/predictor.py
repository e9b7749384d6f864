"""Using what was trained: labels, probabilities, features and evaluation for any images."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image as PillowImage
from torch import Tensor

from tlkit.components import Preprocess
from tlkit.data.batches import normalise, threads
from tlkit.data.images import UnreadableImage, read, upright
from tlkit.devices import choose_device
from tlkit.errors import DataError, RunFolderError, close_matches
from tlkit.evaluation.calibration import probabilities
from tlkit.evaluation.metrics import evaluate, per_class
from tlkit.model.classifier import Classifier, to_layout
from tlkit.model_folder import load_model
from tlkit.plugins import Registry, load_registry

#: A file, one of Pillow's images, or pixels: uint8 ``(H, W)``, ``(H, W, 3)`` RGB or ``(H, W, 4)`` RGBA.
ImageLike = Path | str | PillowImage.Image | NDArray[np.uint8]

#: The label of an image whose confidence is below `Predictor.reject_below`.
UNCLASSIFIED = "unclassified"
BATCH = 32
#: Batches that are read while one is computed.
AHEAD = 2
NAMED = 20


class Predictions(NamedTuple):
    """Labels, and probabilities ``(N, classes)`` in the order of the predictor's classes."""

    labels: list[str]
    probabilities: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Prediction:
    """What became of one image.

    Attributes:
        image: its path, or its place for an image that is no file.
        label: the class, or "unclassified"; None if it could not be read.
        confidence: the probability of the most probable class; None if it could not be read.
        top: the most probable classes with their probabilities, most probable first.
        error: why it could not be read, or None.
    """

    image: str
    label: str | None
    confidence: float | None
    top: tuple[tuple[str, float], ...]
    error: str | None = None


class Predictor:
    """A trained classifier, ready for images; see `tlkit.load`.

    It computes in float32, whatever it was trained in, so that its answers are the same everywhere.

    Attributes:
        module: the network in evaluation mode: normalised images ``(B, 3, H, W)`` to logits ``(B, classes)``.
        preprocess: from a decoded image to the pixels that the network is given.
        classes: names, in the order of logits and probabilities.
        temperature: what logits are divided by before the softmax.
        reject_below: the confidence below which an image stays unclassified, or None.
    """

    def __init__(
        self,
        module: Classifier,
        preprocess: Preprocess,
        classes: Sequence[str],
        *,
        temperature: float = 1.0,
        reject_below: float | None = None,
        device: str | None = None,
    ) -> None:
        self._device = choose_device(device)
        self.module: Classifier = to_layout(module, self._device).eval()
        self.preprocess = preprocess
        self.classes = tuple(classes)
        self.temperature = temperature
        self.reject_below = reject_below

    def predict(self, images: Iterable[ImageLike]) -> Predictions:
        """Labels and probabilities of images.

        Args:
            images: files, Pillow images and uint8 arrays, in any mixture.

        Raises:
            DataError: some cannot be read; all are named.
        """
        found = self.predict_proba(images)
        return Predictions([self._label(row) for row in found], found)

    def predict_proba(self, images: Iterable[ImageLike]) -> NDArray[np.float64]:
        """Probabilities of images, ``(N, classes)``; otherwise as `predict`."""
        logits = self._all(images, self.module)
        return probabilities(logits.double().numpy(), self.temperature)

    def features(self, images: Iterable[ImageLike]) -> NDArray[np.float32]:
        """The backbone's features of images, ``(N, C, h, w)``, ``(N, N', C)`` or ``(N, C)``."""
        features: NDArray[np.float32] = self._all(images, self.module.features).numpy()
        return features

    def stream(self, images: Iterable[ImageLike], *, top: int = 1) -> Iterator[Prediction]:
        """Predictions one by one, in order; memory stays the same for any number of images.

        Args:
            images: as for `predict`; an image that cannot be read is reported, and the rest predicted.
            top: how many classes each prediction lists.
        """
        for names, errors, logits in self._batches(images, self.module):
            found = probabilities(logits.double().numpy(), self.temperature) if len(logits) else ()
            rows: Iterator[NDArray[np.float64]] = iter(found)
            for name, error in zip(names, errors, strict=True):
                if error is not None:
                    yield Prediction(name, None, None, (), error)
                    continue
                row = next(rows)
                order = np.argsort(-row, kind="stable")[:top]
                best = tuple((self.classes[place], float(row[place])) for place in order)
                yield Prediction(name, self._label(row), float(row.max()), best)

    def evaluate(
        self,
        images: Sequence[ImageLike],
        labels: Sequence[str],
        *,
        tick: Callable[[int], object] = lambda _: None,
    ) -> dict[str, Any]:
        """What the classifier is worth on images whose class is known.

        Args:
            images: as for `predict`.
            labels: each one's class, by name.
            tick: called with how many images were looked at since.

        Returns:
            What results.json has under `test`, and `per_class`; with `reject_below` also `rejected`.

        Raises:
            DataError: a label is no class of this classifier, or images cannot be read.
        """
        unknown = sorted(set(labels) - set(self.classes))
        if unknown:
            hints = [f"{name!r}{close_matches(name, self.classes)}" for name in unknown[:NAMED]]
            raise DataError(
                f"the classifier does not know {', '.join(hints)}; it knows {', '.join(self.classes[:NAMED])}"
            )
        if len(images) != len(labels) or not labels:
            raise DataError(f"there are {len(images)} images and {len(labels)} labels")
        places = {name: place for place, name in enumerate(self.classes)}
        truth = np.array([places[label] for label in labels], np.int64)
        logits = self._all(images, self.module, tick)
        found = probabilities(logits.double().numpy(), self.temperature)
        result = {**evaluate(found, truth), "per_class": per_class(found, truth, self.classes)}
        if self.reject_below is not None:
            kept = found.max(1) >= self.reject_below
            right = found.argmax(1) == truth
            result["rejected"] = {
                "below": self.reject_below,
                "n": int((~kept).sum()),
                "accuracy_of_others": float(right[kept].mean()) if kept.any() else None,
            }
        return result

    def _label(self, row: NDArray[np.float64]) -> str:
        best = int(row.argmax())
        rejected = self.reject_below is not None and row[best] < self.reject_below
        return UNCLASSIFIED if rejected else self.classes[best]

    def _all(
        self, images: Iterable[ImageLike], network: Any, tick: Callable[[int], object] = lambda _: None
    ) -> Tensor:
        """A network's output for all images; raises if any cannot be read."""
        failed: list[str] = []
        parts: list[Tensor] = []
        for names, errors, output in self._batches(images, network):
            failed += [f"{name}: {error}" for name, error in zip(names, errors, strict=True) if error]
            parts.append(output)
            tick(len(names))
        if failed:
            more = [f"  and {len(failed) - NAMED} more"] if len(failed) > NAMED else []
            raise DataError(
                "\n".join(["images cannot be read", *(f"  - {each}" for each in failed[:NAMED]), *more])
            )
        if not parts:
            raise DataError("there are no images")
        return torch.cat(parts)

    def _batches(
        self, images: Iterable[ImageLike], network: Any
    ) -> Iterator[tuple[list[str], list[str | None], Tensor]]:
        """Per batch: the images' names, why each could not be read, and the network's output for the rest."""
        coming = enumerate(images)
        waiting: deque[list[tuple[str, Future[NDArray[np.uint8]]]]] = deque()
        pool = ThreadPoolExecutor(threads())
        try:
            while True:
                while len(waiting) <= AHEAD and (part := list(islice(coming, BATCH))):
                    waiting.append(
                        [(_name(place, image), pool.submit(self._pixels, image)) for place, image in part]
                    )
                if not waiting:
                    break
                names: list[str] = []
                errors: list[str | None] = []
                stack: list[NDArray[np.uint8]] = []
                for name, future in waiting.popleft():
                    names.append(name)
                    try:
                        stack.append(future.result())
                        errors.append(None)
                    except UnreadableImage as error:
                        errors.append(str(error))
                yield names, errors, self._run(network, stack)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def _run(self, network: Any, stack: list[NDArray[np.uint8]]) -> Tensor:
        if not stack:
            return torch.empty(0)
        with torch.inference_mode():
            output: Tensor = network(normalise(np.stack(stack), self.preprocess).to(self._device))
        return output.float().cpu()

    def _pixels(self, image: ImageLike) -> NDArray[np.uint8]:
        return pixels_of(image, self.preprocess)


def pixels_of(image: ImageLike, preprocess: Preprocess) -> NDArray[np.uint8]:
    """What a network is given of an image, before normalisation: uint8 RGB ``(size, size, 3)``.

    Raises:
        UnreadableImage: it cannot be read.
    """
    return preprocess(_decoded(image))


def load(
    path: Path | str,
    *,
    phase: str | None = None,
    reject_below: float | None = None,
    device: str | None = None,
    registry: Registry | None = None,
) -> Predictor:
    """Loads a trained classifier.

    Args:
        path: a model folder, or a run folder.
        phase: which phase of a run; its last unless given.
        reject_below: in place of what was stored with the model.
        device: such as "cpu" or "cuda:1"; the best there is unless given.
        registry: the parts to choose from; all that is installed unless given.

    Raises:
        RunFolderError: there is no sound model, or no such phase.
    """
    folder = find_model(Path(path), phase)
    saved = load_model(folder, registry or load_registry())
    return Predictor(
        saved.classifier,
        saved.backbone.preprocess,
        saved.classes,
        temperature=saved.temperature,
        reject_below=saved.reject_below if reject_below is None else reject_below,
        device=device,
    )


def find_model(path: Path, phase: str | None = None) -> Path:
    """The model folder that a path stands for: itself, or a run's last phase, or the one that is named.

    Raises:
        RunFolderError: there is none.
    """
    if (path / "config.json").is_file() or (path / "model.safetensors").is_file():
        if phase is not None:
            raise RunFolderError(f"{path} is a model folder, and has no phases: leave --phase {phase} out")
        return path
    if not (path / "recipe.toml").is_file():
        there = "is no model folder and no run folder" if path.is_dir() else "is not there"
        siblings = [each.name for each in path.parent.iterdir()] if path.parent.is_dir() else []
        raise RunFolderError(f"{path} {there}{'' if path.is_dir() else close_matches(path.name, siblings)}")
    try:
        done = [result["name"] for result in json.loads((path / "results.json").read_text())["phases"]]
    except (OSError, ValueError, KeyError) as error:
        raise RunFolderError(f"{path}: this run has finished no phase yet") from error
    if phase is not None and phase not in done:
        hint = close_matches(phase, done) or f"; there are {', '.join(done)}"
        raise RunFolderError(f"{path} has no finished phase {phase!r}{hint}")
    return path / "phases" / (phase or done[-1]) / "model"


def _name(place: int, image: ImageLike) -> str:
    return str(image) if isinstance(image, str | Path) else f"image {place}"


def _decoded(image: ImageLike) -> PillowImage.Image:
    if isinstance(image, str | Path):
        return read(Path(image))
    if isinstance(image, np.ndarray):
        colours = image.ndim == 3 and image.shape[2] in (3, 4)
        if image.dtype != np.uint8 or not (colours or image.ndim == 2):
            raise UnreadableImage(
                f"an array of {image.dtype} {image.shape} is no image: it must be uint8 (H, W), "
                "(H, W, 3) RGB or (H, W, 4) RGBA"
            )
        return upright(PillowImage.fromarray(image))
    if isinstance(image, PillowImage.Image):
        return upright(image)
    raise UnreadableImage(f"{type(image).__name__} is no path, no Pillow image and no array")
