"""A prepared phase put to work: what it trains on, what it predicts, what came of keeping features."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tlkit.data.feed import Feed
from tlkit.data.images import Image
from tlkit.data.pixels import Pixels, View
from tlkit.data.splits import Splits
from tlkit.features.extraction import Owner, column_key
from tlkit.features.feeds import ImageFeed, KeptFeed
from tlkit.features.store import FeatureStore, Rows
from tlkit.hashing import seed
from tlkit.planning import Prepared, why_not
from tlkit.training.loop import Lesson, predict


def make_feeds(
    item: Prepared,
    splits: Splits,
    unlabelled: Sequence[Image],
    store: FeatureStore,
    pixels: Pixels,
    recipe_seed: int,
) -> dict[str, Feed]:
    """The phase's feeds: `val`, `test`, `unlabelled`, and `train` where it trains."""
    feeds: dict[str, Feed] = {}
    for name, images, kept in (
        ("val", splits.val, item.keeps),
        ("test", splits.test, item.keeps_small(splits.test)),
        ("unlabelled", unlabelled, item.keeps_small(unlabelled)),
    ):
        turns = [0] * len(images)
        if kept:
            feeds[name] = KeptFeed([_rows(item, item.plain, images, store)], turns, item.split, item.setting)
        else:
            # validation images come again each epoch, the others once
            again = name == "val" and item.trains
            plain, split, setting = [item.plain], item.split, item.setting
            feeds[name] = ImageFeed(pixels, images, plain, turns, split, setting, remember=again)
    if item.trains:
        feeds["train"] = _training_feed(item, splits.train, store, pixels, recipe_seed)
    return feeds


def make_lesson(
    item: Prepared, feeds: Mapping[str, Feed], splits: Splits, classes: int, recipe_seed: int
) -> Lesson:
    """What the phase learns from."""
    return Lesson(
        train=feeds["train"],
        train_labels=labels(splits.train),
        val=feeds["val"],
        val_labels=labels(splits.val),
        classes=classes,
        seed=(recipe_seed, item.phase.name),
        from_trained=item.phase.start_from is not None,
    )


def logits(item: Prepared, feed: Feed, tick: Callable[[int], object]) -> NDArray[np.float64]:
    """What the phase's network makes of the images: ``(N, classes)``."""
    found = predict(item.split, feed, item.phase.training.batch_size, item.setting, tick)
    result: NDArray[np.float64] = found.double().numpy()
    return result


def feature_summary(item: Prepared, splits: Splits, computed: Mapping[Owner, int]) -> dict[str, Any]:
    """What came of keeping features, in image views of training and validation.

    A view that is computed for several phases at once counts for the first; the others reuse it.
    """
    name = item.phase.name
    wanted = len(splits.val) if item.keeps else 0
    if item.trains and item.keeps_training:
        wanted += len(splits.train) * len(item.views)
    made = computed.get((name, "train"), 0) + computed.get((name, "val"), 0)
    return {
        "kept": item.keeps_training,
        "computed": made,
        "reused": wanted - made,
        "bytes": wanted * item.bytes_per_view(),
        "why_not": why_not(item),
    }


def labels(images: Sequence[Image]) -> NDArray[np.int64]:
    """The images' labels: int64 ``(N,)``."""
    return np.array([image.sample.label for image in images], np.int64)


def _training_feed(
    item: Prepared, images: Sequence[Image], store: FeatureStore, pixels: Pixels, recipe_seed: int
) -> Feed:
    draw = np.random.default_rng(seed(recipe_seed, item.phase.name, "views"))
    turns = draw.integers(len(item.views), size=len(images)).tolist()
    if item.keeps_training:
        rows = [_rows(item, view, images, store) for view in item.views]
        return KeptFeed(rows, turns, item.split, item.setting)
    fresh = item.phase.views == "fresh"
    return ImageFeed(pixels, images, item.views, turns, item.split, item.setting, remember=True, fresh=fresh)


def _rows(item: Prepared, view: View, images: Sequence[Image], store: FeatureStore) -> list[Rows]:
    names = [image.sha256 for image in images]
    return [
        store.column(column_key(boundary, view, item.setting)).rows(names)
        for boundary in item.split.boundaries
    ]
