"""What a network behind its frontier is fed with, batch by batch: kept features, or images read anew."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from tlkit.data.batches import batches
from tlkit.data.feed import Places, chunks
from tlkit.data.images import Image
from tlkit.data.pixels import Pixels, View
from tlkit.devices import Setting, free_memory, moved
from tlkit.features.store import Rows
from tlkit.model.classifier import is_convolutional
from tlkit.model.frontier import Split


class KeptFeed:
    """Kept features, of one view or of several that take turns."""

    def __init__(
        self, views: Sequence[Sequence[Rows]], turns: Sequence[int], split: Split, setting: Setting
    ) -> None:
        """Holds everything on the device, or else in memory, where it fits in half of what is free.

        Args:
            views: for each view, the rows of each boundary.
            turns: per image, the view it begins with; it goes on to the next each epoch.
            split: what will be fed.
            setting: on which device.
        """
        self._turns = np.asarray(turns, np.int64)
        self._views = len(views)
        self._device = setting.device
        self._channels_last = is_convolutional(split.root)
        self._rows = [Rows.joined(of_views) for of_views in zip(*views, strict=True)]
        self._held: list[Tensor] | None = None
        needed = sum(rows.bytes for rows in self._rows)
        for place in (setting.device, torch.device("cpu")):
            if needed < free_memory(place) // 2:
                self._held = [rows.together(place, channels_last=self._channels_last) for rows in self._rows]
                break

    def __len__(self) -> int:
        return len(self._turns)

    def batches(self, order: Places, size: int, epoch: int) -> Iterator[tuple[Places, tuple[Tensor, ...]]]:
        """See `Feed`."""
        view = (self._turns + epoch) % self._views
        wanted = (view * len(self) + np.arange(len(self)))[order]
        index = torch.from_numpy(wanted)
        if self._held is not None:
            index = index.to(self._held[0].device)  # once for the whole epoch: no step waits for a copy
        start = 0
        for places in chunks(order, size):
            end = start + len(places)
            if self._held is not None:
                rows = [held[index[start:end]] for held in self._held]
            else:
                rows = [each.take(wanted[start:end]) for each in self._rows]
            yield places, tuple(self._laid_out(moved(each, self._device).flatten(0, 1)) for each in rows)
            start = end

    def _laid_out(self, rows: Tensor) -> Tensor:
        if rows.ndim == 4 and self._channels_last:
            return rows.contiguous(memory_format=torch.channels_last)
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
        device, remember = self._setting.device, self._remember
        for places, images in batches(
            self._pixels, self._images, views, parts, device=device, remember=remember
        ):
            with self._setting.autocast():
                crossing = self._split.prefix(images)
            if self._split.boundaries:
                # as if they had been kept
                crossing = tuple(tensor.to(self._setting.dtype) for tensor in crossing)
            yield places, crossing
