"""The frozen pass: every boundary that the phases need of an image, made together, once, and kept."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn

from tlkit.data.batches import Pixels, View, batches
from tlkit.data.images import Image
from tlkit.devices import Setting, processes
from tlkit.features.store import FeatureStore, Writer
from tlkit.hashing import digest
from tlkit.model.frontier import Boundary, Split
from tlkit.model.tracing import in_place, needed

#: Images per forward pass. Always filled up, so that a feature does not depend on its neighbours' number.
BATCH = 32


#: A phase's name and a part of the data: train, val, test.
Owner = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Request:
    """The boundaries of one network, wanted of some images in one view.

    Attributes:
        split: the network.
        view: what is done to the images in front of it.
        images: which images.
        owner: who asks, and for which part of the data.
    """

    split: Split
    view: View
    images: tuple[Image, ...]
    owner: Owner


def column_key(boundary: Boundary, view: View, setting: Setting) -> str:
    """The key of a boundary's column: the network up to there, precision, preprocessing, view."""
    return digest(boundary.fingerprint, view.identity, setting.dtype, setting.device.type, torch.__version__)


@dataclass(frozen=True, slots=True)
class Job:
    """Images of one view that lack the same columns."""

    owner: Owner
    view: View
    images: tuple[Image, ...]
    wanted: Mapping[str, tuple[Split, Boundary]]


def plan(requests: Iterable[Request], store: FeatureStore, setting: Setting) -> list[Job]:
    """What is missing of these requests, for `extract`.

    Requests that share a view share one pass over its images: each image view is in exactly one job, and
    counts for the first request that wants it.
    """
    lacking: dict[tuple[str, str], dict[str, tuple[Split, Boundary]]] = {}
    first: dict[tuple[str, str], tuple[Request, Image]] = {}
    for request in requests:
        for boundary in request.split.boundaries:
            key = column_key(boundary, request.view, setting)
            by_hash = {image.sha256: image for image in request.images}
            for name in store.column(key).missing(list(by_hash)):
                place = (request.view.identity, name)
                lacking.setdefault(place, {}).setdefault(key, (request.split, boundary))
                first.setdefault(place, (request, by_hash[name]))
    groups: dict[tuple[Owner, str, tuple[str, ...]], list[tuple[str, str]]] = {}
    for place, wanted in lacking.items():
        groups.setdefault((first[place][0].owner, place[0], tuple(sorted(wanted))), []).append(place)
    return [
        Job(
            owner,
            first[places[0]][0].view,
            tuple(first[place][1] for place in places),
            lacking[places[0]],
        )
        for (owner, _, _), places in groups.items()
    ]


def extract(
    jobs: Iterable[Job],
    store: FeatureStore,
    setting: Setting,
    pixels: Pixels,
    tick: Callable[[int], object] = lambda _: None,
) -> dict[Owner, int]:
    """Computes what was planned and keeps it; of several processes, each does its part.

    Args:
        jobs: what to compute, from `plan`.
        store: where it is kept.
        setting: how it is computed.
        pixels: where images are read.
        tick: called with the number of image views done after each batch.

    Returns:
        For each owner, how many image views were computed.
    """
    computed: dict[Owner, int] = {}
    together = processes()
    for job in jobs:
        own = job.images[together.process_index :: together.num_processes]
        executor = Pass(job.wanted, setting)
        writers = {key: Writer(store.column(key)) for key in executor.keys}
        views = [job.view] * len(own)
        parts = [np.arange(start, min(start + BATCH, len(views))) for start in range(0, len(views), BATCH)]
        again = job.view.augmentation is not None  # the other views decode the same images
        for places, images in batches(pixels, own, views, parts, fill=BATCH, remember=again):
            names = [own[place].sha256 for place in places]
            for key, features in executor.run(images.to(setting.device)).items():
                rows = features.reshape(BATCH, -1, *features.shape[1:])
                writers[key].add(names, rows[: len(names)])
            tick(len(names) * together.num_processes)
        for writer in writers.values():
            writer.flush()
        computed[job.owner] = computed.get(job.owner, 0) + len(job.images)
    together.wait_for_everyone()
    return computed


@dataclass(frozen=True, slots=True)
class _Step:
    key: str
    root: nn.Module
    node: fx.Node
    inputs: Mapping[fx.Node, str]


class Pass:
    """Computes several boundaries together: what their graphs have in common is computed once.

    Two nodes are the same computation when their fingerprints are the same, whatever networks they are in.
    """

    def __init__(self, wanted: Mapping[str, tuple[Split, Boundary]], setting: Setting) -> None:
        self.keys = tuple(wanted)
        self._setting = setting
        self._results: dict[str, list[str]] = {}
        self._steps: list[_Step] = []
        self._networks: dict[str, set[int]] = {}
        for key, (split, boundary) in wanted.items():
            self._results.setdefault(boundary.fingerprint, []).append(key)
            self._add(split, boundary)
        self._last = {name: place for place, step in enumerate(self._steps) for name in step.inputs.values()}
        self._copied = {place for place in range(len(self._steps)) if self._spoils(place)}

    def _add(self, split: Split, boundary: Boundary) -> None:
        prints = split.fingerprints
        for node in needed(split.root, [boundary.node]):
            key = prints[node]
            if key not in self._networks:
                inputs = {other: prints[other] for other in node.all_input_nodes}
                self._steps.append(_Step(key, split.root, node, inputs))
            self._networks.setdefault(key, set()).add(id(split))

    def _spoils(self, place: int) -> bool:
        """Whether a step changes its input in place while another network still needs it as it was."""
        step = self._steps[place]
        if not in_place(step.root, step.node):
            return False
        changed = step.inputs[step.node.all_input_nodes[0]]
        here = self._networks[step.key]
        return any(
            changed in other.inputs.values() and self._networks[other.key] - here
            for other in self._steps[place + 1 :]
        )

    def run(self, images: Tensor) -> dict[str, Tensor]:
        """Images ``(B, 3, H, W)`` to each column's features ``(k·B, …)``, on the CPU."""
        known: dict[str, Any] = {}
        kept: dict[str, Tensor] = {}
        with torch.no_grad(), self._setting.autocast():
            for place, step in enumerate(self._steps):
                known[step.key] = self._value(step, known, images, place in self._copied)
                for column in self._results.get(step.key, ()):
                    # copied now: a later step may change it in place
                    value = known[step.key].to(self._setting.dtype)
                    kept[column] = value.to("cpu", copy=True, memory_format=torch.contiguous_format)
                for name in step.inputs.values():
                    if self._last[name] == place:
                        known.pop(name, None)
        return kept

    def _value(self, step: _Step, known: dict[str, Any], images: Tensor, copied: bool) -> Any:
        node = step.node
        if node.op == "placeholder":
            return images
        if node.op == "get_attr":
            return operator.attrgetter(str(node.target))(step.root)
        args: Any
        kwargs: Any
        args, kwargs = fx.node.map_arg((node.args, node.kwargs), lambda other: known[step.inputs[other]])
        if copied:
            args = (args[0].clone(), *args[1:])
        if node.op == "call_module":
            return step.root.get_submodule(str(node.target))(*args, **kwargs)
        if node.op == "call_method":
            return getattr(args[0], str(node.target))(*args[1:], **kwargs)
        function: Any = node.target
        return function(*args, **kwargs)


def bytes_per_view(split: Split, setting: Setting) -> int:
    """Bytes of one image view's kept features."""
    width = torch.empty(0, dtype=setting.dtype).element_size()
    total = 0
    for boundary in split.boundaries:
        count = 1
        for length in boundary.shape:
            count *= length
        total += count * width
    return total
