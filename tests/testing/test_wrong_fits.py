"""Heads that fit themselves wrongly, on purpose: the contract suite finds each mistake."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn

from tlkit.parts.backbone import Backbone
from tlkit.testing import check_head


class Centroids(nn.Module):
    """The distance to each class's mean features; each wrong head differs from it in one thing."""

    centroids: Tensor

    def __init__(self, backbone: Backbone, classes: Sequence[str]) -> None:
        super().__init__()
        self.register_buffer("centroids", torch.zeros(len(classes), *backbone.feature_shape))

    def forward(self, features: Tensor) -> Tensor:
        return -torch.cdist(features.flatten(1), self.centroids.flatten(1))

    def fit_features(self, features: Tensor, labels: Tensor, weights: Tensor) -> object:
        self.centroids = torch.stack(
            [features[labels == label].mean(0) for label in range(len(self.centroids))]
        )
        return None


class FitsNothing(Centroids):
    def fit_features(self, features: Tensor, labels: Tensor, weights: Tensor) -> object:
        return "nothing"


class AddsToTheLastFit(Centroids):
    def fit_features(self, features: Tensor, labels: Tensor, weights: Tensor) -> object:
        before = self.centroids
        super().fit_features(features, labels, weights)
        self.centroids = self.centroids + 0.1 * before
        return None


class DrawsWhenItFits(Centroids):
    def fit_features(self, features: Tensor, labels: Tensor, weights: Tensor) -> object:
        return super().fit_features(features + 0.01 * torch.randn_like(features), labels, weights)


class DividesByTheVariance(Centroids):
    def fit_features(self, features: Tensor, labels: Tensor, weights: Tensor) -> object:
        super().fit_features(features, labels, weights)
        classes = range(len(self.centroids))
        variances = torch.stack([features[labels == label].var(0, correction=0) for label in classes])
        self.centroids = self.centroids * variances / variances
        return None


class SavesNothing(Centroids):
    def __init__(self, backbone: Backbone, classes: Sequence[str]) -> None:
        super().__init__(backbone, classes)
        self.register_buffer("centroids", self.centroids, persistent=False)


class KeepsAllImages(Centroids):
    def __init__(self, backbone: Backbone, classes: Sequence[str]) -> None:
        super().__init__(backbone, classes)
        self.register_buffer("images", torch.zeros(0))

    def fit_features(self, features: Tensor, labels: Tensor, weights: Tensor) -> object:
        self.images = features
        return super().fit_features(features, labels, weights)


class ReturnsItsLoss(Centroids):
    def fit_features(self, features: Tensor, labels: Tensor, weights: Tensor) -> object:
        super().fit_features(features, labels, weights)
        return 0.1


FITTING: list[tuple[type[Centroids], str]] = [
    (FitsNothing, "fits itself: expected the labels of the 60 images"),
    (AddsToTheLastFit, "fits itself: expected the same logits from a head that is fitted to the same"),
    (DrawsWhenItFits, "fits itself: expected the same logits from a head that is fitted to the same"),
    (DividesByTheVariance, "fits rare classes: expected finite logits after a fit in which a class has one"),
    (SavesNothing, "its fitted state can be loaded: expected the same logits from a second head"),
    (KeepsAllImages, "its fitted state can be loaded: expected the same parameters and buffers"),
    (ReturnsItsLoss, "fits itself: expected a str or None from fit_features: what it chose, for the results; "
                     "got float"),
]  # fmt: skip


@pytest.mark.parametrize(("head", "fragment"), FITTING, ids=[row[0].__name__ for row in FITTING])
def test_wrong_heads_that_fit_themselves(head: type[Centroids], fragment: str) -> None:
    with pytest.raises(AssertionError) as failed:
        check_head(head)
    assert fragment in str(failed.value)


def test_correct_heads_and_fits() -> None:
    fits = ("fits itself", "fits rare classes", "its fitted state can be loaded")
    outcomes = {result.check: result.outcome for result in check_head(Centroids)}
    assert {outcomes[check] for check in fits} == {"passed"}
    outcomes = {result.check: result.outcome for result in check_head("linear")}
    assert {outcomes[check] for check in fits} == {"not applicable"}
