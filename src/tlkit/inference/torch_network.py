"""A classifier of torch's as `Predictor` computes with it: in evaluation mode, folded, on its device."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tlkit.data.loader import normalize
from tlkit.data.views import Pixels
from tlkit.model.classifier import Classifier, PredictionNetwork, average_positions, to_layout
from tlkit.model.folding import FoldedClassifier
from tlkit.model.unknown import UnknownDetector
from tlkit.parts.preprocess import Preprocess
from tlkit.runtime.devices import Precision, choose_device, compute_config, copy_to_cpu

Key = TypeVar("Key")
#: Number of images that are computed together: a CPU gains nothing from more, a GPU needs them to be busy.
BATCH, GPU_BATCH = 32, 128


class TorchNetwork:
    """A classifier on a device, with a copy in which batch norms are folded into convolutions.

    Its methods take batches of images with a key each: pixels after preprocessing, uint8 RGB
    ``(size, size, 3)``. They yield each key with the outputs, float32 with a row per image; for a batch
    without images there are none.

    Attributes:
        module: the classifier; what is computed does not follow if it is changed.
        batch: number of images to compute together.
    """

    def __init__(
        self,
        classifier: Classifier,
        preprocess: Preprocess,
        detector: UnknownDetector | None,
        *,
        mirror: bool,
        device: str | None,
        precision: Precision,
    ) -> None:
        """Moves the classifier to the device; see `Predictor`."""
        self._device = choose_device(device)
        self._preprocess = preprocess
        self._mirror = mirror
        self.batch = GPU_BATCH if self._device.type == "cuda" else BATCH
        self.module = to_layout(classifier, self._device).eval()
        self._folded = FoldedClassifier(self.module, preprocess.size, compute_config(self._device, precision))
        self._prediction = PredictionNetwork(self._folded, detector, mirror=mirror).to(self._device)

    def predict(
        self, batches: Iterable[tuple[Key, Sequence[Pixels]]]
    ) -> Iterator[tuple[Key, tuple[NDArray[np.float32], ...]]]:
        """Computes logits ``(B, classes)`` and, with a detector, novelty ``(B,)``."""
        return self._compute(self._prediction, batches)

    def features(
        self, batches: Iterable[tuple[Key, Sequence[Pixels]]]
    ) -> Iterator[tuple[Key, tuple[NDArray[np.float32], ...]]]:
        """Computes the backbone's features, ``(B, C, h, w)``, ``(B, N, C)`` or ``(B, C)``."""
        return self._compute(lambda images: (self._folded.features(images),), batches)

    def represent(
        self, batches: Iterable[tuple[Key, Sequence[Pixels]]]
    ) -> Iterator[tuple[Key, tuple[NDArray[np.float32], ...]]]:
        """Computes pooled features ``(B, C)`` and logits ``(B, classes)``, the means over the views."""
        return self._compute(self._features_and_logits, batches)

    def _features_and_logits(self, images: Tensor) -> tuple[Tensor, Tensor]:
        views = (images, images.flip(3)) if self._mirror else (images,)
        features = [self._folded.features(view) for view in views]
        pooled = [average_positions(of_view) for of_view in features]
        logits = [self.module.head(of_view) for of_view in features]
        return torch.stack(pooled).mean(0), torch.stack(logits).mean(0)

    def _compute(
        self,
        function: Callable[[Tensor], tuple[Tensor, ...]],
        batches: Iterable[tuple[Key, Sequence[Pixels]]],
    ) -> Iterator[tuple[Key, tuple[NDArray[np.float32], ...]]]:
        """Applies a function to normalised images; a GPU computes a batch while the one before is copied."""
        computed = ((key, self._run(function, pixels)) for key, pixels in batches)
        for key, outputs in copy_to_cpu(computed):
            yield key, tuple(output.float().numpy() for output in outputs.values())

    @torch.inference_mode()
    def _run(
        self, function: Callable[[Tensor], tuple[Tensor, ...]], pixels: Sequence[Pixels]
    ) -> dict[str, Tensor]:
        """Returns a function's outputs, by position, on the device."""
        if not pixels:
            return {}
        images = normalize(np.stack(pixels), self._preprocess, self._device)
        return {str(index): output for index, output in enumerate(function(images))}
