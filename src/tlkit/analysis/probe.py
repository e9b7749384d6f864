"""Fits probes to pooled features: what most questions to the images rest on."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from tlkit.data.folds import split_stratified
from tlkit.parts.backbone import Backbone
from tlkit.plugins.registry import Registry


class FittedProbe:
    """A probe that is fitted to pooled features."""

    def __init__(self, head: torch.nn.Module, dimensions: int) -> None:
        self._head = head
        self._dimensions = dimensions

    @torch.no_grad()
    def predict_proba(self, features: NDArray[np.float32]) -> NDArray[np.float64]:
        """Predicts probabilities ``(N, classes)`` from pooled features ``(N, C)``."""
        logits: torch.Tensor = self._head(as_head_input(features, self._dimensions))
        return logits.double().softmax(1).numpy()


class ProbeFactory:
    """Fits probes to pooled features of one backbone's.

    Attributes:
        backbone: the backbone.
    """

    def __init__(self, registry: Registry, backbone: Backbone, classes: Sequence[str]) -> None:
        self.backbone = backbone
        self._registry = registry
        self._classes = tuple(classes)

    def fit(
        self, features: NDArray[np.float32], labels: NDArray[np.int64], *, kernel: bool = True
    ) -> FittedProbe:
        """Fits the built-in head ``probe``, which chooses its strength and form among these images only.

        Args:
            features: pooled features, float32 ``(N, C)``.
            labels: int64 ``(N,)``.
            kernel: whether the kernel form is tried beside the linear one; without it, it takes a fraction
                of the time.
        """
        head = self._registry.make("head", "probe", {"kernel": kernel}, self.backbone, self._classes)
        dimensions = len(self.backbone.feature_shape)
        head.fit_features(
            as_head_input(features, dimensions),
            torch.from_numpy(labels),
            torch.ones(len(labels)),
        )
        return FittedProbe(head.eval(), dimensions)

    def out_of_fold(
        self,
        features: NDArray[np.float32],
        labels: NDArray[np.int64],
        groups: NDArray[np.int64],
        *,
        folds: int = 5,
        seed: int = 0,
        kernel: bool = True,
        tick: Callable[[int], object] = lambda _: None,
    ) -> NDArray[np.float64]:
        """Predicts each image's probabilities ``(N, classes)`` by a probe that was not fitted to it.

        A class with fewer images than folds is in fewer of them, and images of one of the groups ``(N,)`` are
        in the same fold. `tick` is called with 1 after each fold.
        """
        rows = np.full((len(labels), len(self._classes)), np.nan)
        for trained_on, held_out in split_stratified(labels, folds, seed, groups):
            probe = self.fit(features[trained_on], labels[trained_on], kernel=kernel)
            rows[held_out] = probe.predict_proba(features[held_out])
            tick(1)
        return rows


def as_head_input(features: NDArray[np.float32], dimensions: int) -> torch.Tensor:
    """Returns pooled features ``(N, C)`` in the shape of features with that many dimensions per image.

    Heads average over positions: of pooled features there is one.
    """
    tensor = torch.from_numpy(np.ascontiguousarray(features, np.float32))
    return tensor[(slice(None), *{1: (), 2: (None,), 3: (slice(None), None, None)}[dimensions])]
