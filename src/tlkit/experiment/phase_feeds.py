"""What a phase reads of its images: feeds for training and evaluation, features to fit a head to."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tlkit.data.dataset import Dataset
from tlkit.data.feed import Feed
from tlkit.data.images import Image
from tlkit.data.views import View
from tlkit.errors import TrainingError
from tlkit.experiment.frozen_pass import FrozenPass
from tlkit.experiment.prepared_phase import PreparedPhase
from tlkit.feature_store.extraction import column_key
from tlkit.feature_store.feeds import CachedFeed, ImageFeed
from tlkit.feature_store.store import Rows
from tlkit.model.classifier import average_positions
from tlkit.runtime.devices import ComputeConfig
from tlkit.training.loop import predict
from tlkit.utils.hashing import seed

Images = tuple[Image, ...]
Tick = Callable[[int], object]
#: Features of this many images are computed at a time, where they are not cached.
BATCH = 64


def evaluated_images(dataset: Dataset) -> dict[str, Images]:
    """Returns the images that the trained classifier is evaluated on, by part; parts without images too."""
    return {"val": dataset.splits.val, "test": dataset.splits.test, "unlabelled": dataset.unlabelled}


def training_feed(prepared: PreparedPhase, images: Images, frozen_pass: FrozenPass, recipe_seed: int) -> Feed:
    """Returns the feed that a phase trains on, in the views of its augmentation."""
    network, compute, views = prepared.network, prepared.compute, prepared.views
    generator = np.random.default_rng(seed(recipe_seed, prepared.phase.name, "views"))
    offsets = generator.integers(len(views), size=len(images)).tolist()
    if prepared.caches_training:
        rows = [_rows(prepared, view, images, frozen_pass, compute) for view in views]
        return CachedFeed(rows, offsets, network, compute)
    fresh = prepared.phase.views == "fresh"
    return ImageFeed(frozen_pass.reader, images, views, offsets, network, compute, remember=True, fresh=fresh)


def validation_feed(prepared: PreparedPhase, images: Images, frozen_pass: FrozenPass) -> Feed:
    """Returns the feed that a phase is validated on after each epoch."""
    cached = prepared.caches_features
    return _feed(
        prepared, prepared.plain, images, frozen_pass, prepared.compute, cached=cached, remember=True
    )


def evaluation_feeds(prepared: PreparedPhase, images: Images, frozen_pass: FrozenPass) -> list[Feed]:
    """Returns the feeds, one per view, that a trained phase is evaluated with on these images."""
    cached = prepared.caches_small(images)
    return [
        _feed(prepared, view, images, frozen_pass, prepared.evaluation, cached=cached)
        for view in prepared.evaluated_views
    ]


def predict_logits(
    prepared: PreparedPhase, feeds: Sequence[Feed], what: str, tick: Tick = lambda _: None
) -> NDArray[np.float64]:
    """Returns the mean logits over the views of some images, ``(N, classes)``.

    Args:
        prepared: the trained phase.
        feeds: of the images, one per view.
        what: what the images are, for the error.
        tick: called with the number of images done since.

    Raises:
        TrainingError: they are not finite.
    """
    batch_size, evaluation = prepared.phase.training.batch_size, prepared.evaluation
    views = [predict(prepared.network, feed, batch_size, evaluation, tick) for feed in feeds]
    logits = torch.stack(views).double().mean(0)
    check_finite(prepared, logits, what)
    return logits.numpy()


def check_finite(prepared: PreparedPhase, logits: Tensor, what: str) -> None:
    """Raises TrainingError unless all logits of some images are finite."""
    if not logits.isfinite().all():
        raise TrainingError(
            f"phase {prepared.phase.name!r}: the network's outputs for {what} images are not finite numbers: "
            "try a smaller learning rate, or other weights"
        )


def features_of(prepared: PreparedPhase, images: Images, frozen_pass: FrozenPass) -> list[Tensor]:
    """Returns the features that a head sees of these images, ``(N, …)`` per view, on the device.

    Nothing of the backbone is trainable, so the frontier is at its output.
    """
    cached = prepared.caches_features
    return [
        torch.cat(list(_features(prepared, view, images, frozen_pass, cached=cached)))
        for view in prepared.evaluated_views
    ]


def pooled_features_of(prepared: PreparedPhase, images: Images, frozen_pass: FrozenPass) -> Tensor:
    """Returns the pooled features of these images, ``(N, C)``: the mean over the views of prediction."""
    cached = prepared.caches_features if prepared.fits_head else prepared.caches_small(images)
    views = [
        torch.cat(
            [
                average_positions(features)
                for features in _features(prepared, view, images, frozen_pass, cached=cached)
            ]
        )
        for view in prepared.evaluated_views
    ]
    return torch.stack(views).mean(0)


def _features(
    prepared: PreparedPhase, view: View, images: Images, frozen_pass: FrozenPass, *, cached: bool
) -> Iterator[Tensor]:
    """Yields the features of one view in batches, float32 on the device."""
    network = prepared.network
    network.eval()
    feed = _feed(prepared, view, images, frozen_pass, prepared.evaluation, cached=cached)
    for _, crossing in feed.batches(np.arange(len(images)), BATCH, 0):
        with torch.no_grad():
            features = network.features(*crossing)
        yield features.float()


def _feed(
    prepared: PreparedPhase,
    view: View,
    images: Images,
    frozen_pass: FrozenPass,
    compute: ComputeConfig,
    *,
    cached: bool,
    remember: bool = False,
) -> Feed:
    """Returns a feed of one fixed view, from cached features or from the images."""
    network, offsets = prepared.network, [0] * len(images)
    if cached:
        rows = [_rows(prepared, view, images, frozen_pass, compute)]
        return CachedFeed(rows, offsets, network, compute)
    return ImageFeed(frozen_pass.reader, images, [view], offsets, network, compute, remember=remember)


def _rows(
    prepared: PreparedPhase, view: View, images: Images, frozen_pass: FrozenPass, compute: ComputeConfig
) -> list[Rows]:
    names = [image.sha256 for image in images]
    return [
        frozen_pass.store.column(column_key(boundary, view, compute)).rows(names)
        for boundary in prepared.network.boundaries
    ]
