"""What a network behind its frontier is fed with, batch by batch: kept features, or images read anew."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import psutil
import torch
from torch import Tensor

from tlkit.data.batches import Pixels, View, batches
from tlkit.data.feed import Places, chunks
from tlkit.data.images import Image
from tlkit.devices import Setting
from tlkit.features.store import Rows
from tlkit.model.classifier import is_convolutional
from tlkit.model.frontier import Split


class KeptFeed:
    """Kept features, of one view or of several that take turns."""

    def __init__(
        self, views: Sequence[Sequence[Rows]], turns: Sequence[int], split: Split, setting: Setting
    ) -> None:
        """Reads everything into memory when it fits in half of what is free.

        Args:
            views: for each view, the rows of each boundary.
            turns: per image, the view it begins with; it goes on to the next each epoch.
            split: what will be fed.
            setting: on which device.
        """
        self._views = views
        self._turns = np.asarray(turns, np.int64)
        self._device = setting.device
        self._channels_last = is_convolutional(split.root)
        every = [rows for view in views for rows in view]
        if sum(rows.bytes for rows in every) < psutil.virtual_memory().available // 2:
            for rows in every:
                rows.hold()

    def __len__(self) -> int:
        return len(self._turns)

    def batches(self, order: Places, size: int, epoch: int) -> Iterator[tuple[Places, tuple[Tensor, ...]]]:
        """See `Feed`."""
        for places in chunks(order, size):
            numbers = (self._turns[places] + epoch) % len(self._views)
            yield (
                places,
                tuple(self._gather(places, numbers, number) for number in range(len(self._views[0]))),
            )

    def _gather(self, places: Places, numbers: Places, boundary: int) -> Tensor:
        first = self._views[int(numbers[0])][boundary]
        if (numbers == numbers[0]).all():
            rows = first.take(places)
        else:
            parts = [np.flatnonzero(numbers == number) for number in np.unique(numbers)]
            taken = [self._views[int(numbers[part[0]])][boundary].take(places[part]) for part in parts]
            back = np.argsort(np.concatenate(parts), kind="stable")
            rows = torch.cat(taken)[torch.from_numpy(back)]
        rows = rows.flatten(0, 1).to(self._device, non_blocking=True)
        if rows.ndim == 4 and self._channels_last:
            rows = rows.contiguous(memory_format=torch.channels_last)
        return rows


class ImageFeed:
    """Images read each time and sent through the part in front of the frontier."""

    def __init__(
        self,
        pixels: Pixels,
        images: Sequence[Image],
        views: Sequence[View],
        turns: Sequence[int],
        split: Split,
        setting: Setting,
        *,
        remember: bool,
        fresh: bool = False,
    ) -> None:
        """As `KeptFeed`, from images; with `fresh` the one view is drawn anew each epoch."""
        self._pixels = pixels
        self._images = images
        self._views = views
        self._turns = np.asarray(turns, np.int64)
        self._split = split
        self._setting = setting
        self._remember = remember
        self._fresh = fresh

    def __len__(self) -> int:
        return len(self._images)

    def batches(self, order: Places, size: int, epoch: int) -> Iterator[tuple[Places, tuple[Tensor, ...]]]:
        """See `Feed`."""
        if self._fresh:
            views = [self._views[0].drawn(epoch)] * len(self)
        else:
            numbers = (self._turns + epoch) % len(self._views)
            views = [self._views[number] for number in numbers]
        parts = chunks(order, size)
        for places, images in batches(self._pixels, self._images, views, parts, remember=self._remember):
            images = images.to(self._setting.device, non_blocking=True)
            with self._setting.autocast():
                crossing = self._split.prefix(images)
            if self._split.boundaries:
                # as if they had been kept
                crossing = tuple(tensor.to(self._setting.dtype) for tensor in crossing)
            yield places, crossing
