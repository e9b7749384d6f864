"""Feeds a suffix batch by batch: from cached features, or from images read anew."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from tlkit.data.feed import Indices, batch_indices
from tlkit.data.images import Image
from tlkit.data.loader import load_batches
from tlkit.data.views import View, ViewReader
from tlkit.feature_store.store import Rows
from tlkit.model.classifier import is_convolutional
from tlkit.model.partition import Partition
from tlkit.runtime.devices import CPU, ComputeConfig, to_device
from tlkit.runtime.memory import free_memory


class CachedFeed:
    """Cached features of one view, or of several that are used in turn."""

    def __init__(
        self,
        views: Sequence[Sequence[Rows]],
        view_offsets: Sequence[int],
        network: Partition,
        compute: ComputeConfig,
    ) -> None:
        """Holds all features on the device, or else in memory, where they fit in half of what is free.

        Args:
            views: for each view, the rows of each boundary.
            view_offsets: per image, the view of epoch 0; each epoch uses the next one.
            network: the network to feed.
            compute: the device to feed it on.
        """
        self._offsets = np.asarray(view_offsets, np.int64)
        self._views = len(views)
        self._device = compute.device
        self._channels_last = is_convolutional(network.classifier.backbone)
        self._rows = [Rows.joined(of_views) for of_views in zip(*views, strict=True)]
        self._held: list[Tensor] | None = None
        size = sum(rows.size for rows in self._rows)
        for device in (compute.device, CPU):
            if size < free_memory(device) // 2:
                self._held = [rows.load(device, channels_last=self._channels_last) for rows in self._rows]
                break

    def __len__(self) -> int:
        return len(self._offsets)

    def batches(self, order: Indices, size: int, epoch: int) -> Iterator[tuple[Indices, tuple[Tensor, ...]]]:
        """See `tlkit.data.feed.Feed`."""
        view = (self._offsets + epoch) % self._views
        positions = (view * len(self) + np.arange(len(self)))[order]
        index = torch.from_numpy(positions)
        if self._held is not None:
            index = index.to(self._held[0].device)  # once per epoch, so that no step waits for a copy
        start = 0
        for indices in batch_indices(order, size):
            end = start + len(indices)
            if self._held is not None:
                batch = [features[index[start:end]] for features in self._held]
            else:
                batch = [rows.take(positions[start:end]) for rows in self._rows]
            yield indices, tuple(self._prepare(features) for features in batch)
            start = end

    def _prepare(self, features: Tensor) -> Tensor:
        """Moves ``(B, k, …)`` to the device as ``(k·B, …)``, in the layout that convolutions read."""
        rows = to_device(features, self._device).flatten(0, 1)
        if rows.ndim == 4 and self._channels_last:
            return rows.contiguous(memory_format=torch.channels_last)
        return rows


class ImageFeed:
    """Images that are read each time and sent through the prefix."""

    def __init__(
        self,
        reader: ViewReader,
        images: Sequence[Image],
        views: Sequence[View],
        view_offsets: Sequence[int],
        network: Partition,
        compute: ComputeConfig,
        *,
        remember: bool,
        fresh: bool = False,
    ) -> None:
        """Does as `CachedFeed`, from images.

        Args:
            reader: reads the images.
            images: the images.
            views: the views that are used in turn.
            view_offsets: per image, the view of epoch 0.
            network: the network to feed.
            compute: where and how precisely the prefix runs.
            remember: cache the deterministic part of the views in memory, for the next epoch.
            fresh: draw the one view anew each epoch.
        """
        self._reader = reader
        self._images = images
        self._views = views
        self._offsets = np.asarray(view_offsets, np.int64)
        self._network = network
        self._compute = compute
        self._remember = remember
        self._fresh = fresh

    def __len__(self) -> int:
        return len(self._images)

    def batches(self, order: Indices, size: int, epoch: int) -> Iterator[tuple[Indices, tuple[Tensor, ...]]]:
        """See `tlkit.data.feed.Feed`."""
        if self._fresh:
            views = [self._views[0].drawn(epoch)] * len(self)
        else:
            views = [self._views[number] for number in (self._offsets + epoch) % len(self._views)]
        for indices, images in load_batches(
            self._reader,
            self._images,
            views,
            batch_indices(order, size),
            device=self._compute.device,
            remember=self._remember,
        ):
            with self._compute.autocast():
                crossing = self._network.prefix(images)
            if self._network.boundaries:
                # rounded as cached features are, so that caching changes nothing
                crossing = tuple(tensor.to(self._compute.dtype) for tensor in crossing)
            yield indices, crossing
