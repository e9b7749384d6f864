"""The frozen pass: every boundary that the phases need of an image, made together, once, and kept."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn

from tlkit.components import Preprocess
from tlkit.data.batches import batches
from tlkit.data.images import Image
from tlkit.data.pixels import Pixels, View
from tlkit.devices import Setting, one_behind, processes, total_memory
from tlkit.features.store import FeatureStore, Writer
from tlkit.hashing import digest
from tlkit.model.frontier import Boundary, Split
from tlkit.model.tracing import in_place, needed

#: Images per forward pass at most. Always filled up, so that a feature does not depend on its neighbours'
#: number. A processor gains nothing from more; a graphics card needs more to be busy.
BATCH, GPU_BATCH = 32, 256
#: Elements of one tensor at most: some of a graphics card's kernels count them in 32 bits.
LARGEST = 2**31 - 1

#: To be raised when the same network gives other features than before: they are then made again.
COMPUTING = 2

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
    where = setting.dtype, setting.device.type, torch.__version__
    return digest(COMPUTING, boundary.fingerprint, view.identity, *where)


@dataclass(frozen=True, slots=True)
class Job:
    """Images that lack the same boundaries in the same views.

    Attributes:
        owner: who asked first.
        views: they share their preprocessing.
        images: which images.
        wanted: the boundaries, by fingerprint.
    """

    owner: Owner
    views: tuple[View, ...]
    images: tuple[Image, ...]
    wanted: Mapping[str, tuple[Split, Boundary]]

    def __len__(self) -> int:
        """How many image views are to be computed."""
        return len(self.views) * len(self.images)


def plan(requests: Iterable[Request], store: FeatureStore, setting: Setting) -> list[Job]:
    """What is missing of these requests, for `extract`.

    Requests that share a view share one pass over its images: each image view is in exactly one job, and
    counts for the first request that wants it.
    """
    lacking: dict[tuple[str, str], dict[str, tuple[Split, Boundary]]] = {}
    first: dict[tuple[str, str], tuple[Request, Image]] = {}
    for request in requests:
        by_hash = {image.sha256: image for image in request.images}
        for boundary in request.split.boundaries:
            column = store.column(column_key(boundary, request.view, setting))
            for name in column.missing(list(by_hash)):
                place = (name, request.view.identity)
                lacking.setdefault(place, {}).setdefault(boundary.fingerprint, (request.split, boundary))
                first.setdefault(place, (request, by_hash[name]))
    # all views of an image that lack the same go together: it is then decoded once
    together: dict[tuple[Owner, str, Preprocess, tuple[str, ...]], list[tuple[str, str]]] = {}
    for place, wanted in lacking.items():
        request, image = first[place]
        key = (request.owner, image.sha256, request.view.preprocess, tuple(sorted(wanted)))
        together.setdefault(key, []).append(place)
    groups: dict[tuple[Owner, tuple[str, ...], tuple[str, ...]], list[list[tuple[str, str]]]] = {}
    for (owner, _, _, prints), places in together.items():
        groups.setdefault((owner, tuple(view for _, view in places), prints), []).append(places)
    return [
        Job(
            owner,
            tuple(first[place][0].view for place in members[0]),
            tuple(first[places[0]][1] for places in members),
            lacking[members[0][0]],
        )
        for (owner, _, _), members in groups.items()
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
    passes: dict[tuple[frozenset[str], int], tuple[Pass, int]] = {}
    for job in jobs:
        own = job.images[together.process_index :: together.num_processes]
        count = len(job.views)
        images, views = [image for image in own for _ in range(count)], [*job.views] * len(own)
        side = job.views[0].preprocess.size
        alike = frozenset(job.wanted), side
        if alike not in passes:
            made = Pass(job.wanted, setting)
            passes[alike] = made, batch_size(made, side, setting.device)
        executor, size = passes[alike]
        parts = [np.arange(start, min(start + size, len(views))) for start in range(0, len(views), size)]
        writers = [
            {
                name: Writer(store.column(column_key(boundary, view, setting)), sharing=count)
                for name, (_, boundary) in job.wanted.items()
            }
            for view in job.views
        ]
        running = (
            (places, executor.run(batch))
            for places, batch in batches(pixels, images, views, parts, device=setting.device, fill=size)
        )
        for places, features in one_behind(running):
            for number, of_view in enumerate(writers):
                rows = np.flatnonzero(places % count == number)
                names = [images[place].sha256 for place in places[rows]]
                for name, writer in of_view.items():
                    found = features[name]
                    writer.add(names, found.reshape(size, -1, *found.shape[1:])[torch.from_numpy(rows)])
            tick(len(places) * together.num_processes)
        for writer in (writer for of_view in writers for writer in of_view.values()):
            writer.flush()
        computed[job.owner] = computed.get(job.owner, 0) + len(job)
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
        self._setting = setting
        self._results: dict[str, list[str]] = {}
        self._steps: list[_Step] = []
        self._networks: dict[str, set[int]] = {}
        for name, (split, boundary) in wanted.items():
            self._results.setdefault(self._add(split, boundary), []).append(name)
        self._last = {name: place for place, step in enumerate(self._steps) for name in step.inputs.values()}
        self._copied = {place for place in range(len(self._steps)) if self._spoils(place)}

    def _add(self, split: Split, boundary: Boundary) -> str:
        """Adds what a boundary is computed from, and returns its own step's key."""
        root = split.frozen
        (output,) = (node for node in root.graph.nodes if node.op == "output")
        crossing: Any = output.args[0]
        result: fx.Node = crossing[split.boundaries.index(boundary)]
        for node in needed(root, [result]):
            key = node.meta["fingerprint"]
            if key not in self._networks:
                inputs = {other: other.meta["fingerprint"] for other in node.all_input_nodes}
                self._steps.append(_Step(key, root, node, inputs))
            self._networks.setdefault(key, set()).add(id(split))
        return str(result.meta["fingerprint"])

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
        """Images ``(B, 3, H, W)`` to each boundary's features ``(k·B, …)``, on the same device."""
        kept: dict[str, Tensor] = {}
        with torch.no_grad(), self._setting.autocast():
            for step, known in self._walk(images):
                for name in self._results.get(step.key, ()):
                    # copied now: a later step may change it in place
                    kept[name] = known[step.key].to(
                        self._setting.dtype, copy=True, memory_format=torch.contiguous_format
                    )
        return kept

    def footprint(self, images: Tensor) -> tuple[int, int]:
        """Bytes of activations at the fullest moment of a pass, and the most elements that one has."""
        most, largest = 0, 0
        with torch.no_grad(), self._setting.autocast():
            for _, known in self._walk(images):
                tensors = [value for value in known.values() if isinstance(value, Tensor)]
                storages = {value.untyped_storage().data_ptr(): value.untyped_storage() for value in tensors}
                most = max(most, sum(storage.nbytes() for storage in storages.values()))
                largest = max(largest, *(value.numel() for value in tensors), 0)
        return most, largest

    def _walk(self, images: Tensor) -> Iterator[tuple[_Step, dict[str, Any]]]:
        """Each step once it is computed, with all values that are still needed, its own among them."""
        known: dict[str, Any] = {}
        for place, step in enumerate(self._steps):
            known[step.key] = self._value(step, known, images, place in self._copied)
            yield step, known
            for name in step.inputs.values():
                if self._last[name] == place:
                    known.pop(name, None)

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


def batch_size(executor: Pass, size: int, device: torch.device) -> int:
    """How many images of `size` pixels go through together, with activations in a quarter of the memory.

    It depends on the network and the machine alone, not on what is free: the same run makes the same
    features.
    """
    # of two, since some networks squeeze a batch of one away
    images = torch.zeros(2, 3, size, size, device=device).contiguous(memory_format=torch.channels_last)
    needed, largest = executor.footprint(images)
    room = total_memory(device) // 4
    count = GPU_BATCH if device.type == "cuda" else BATCH
    while count > 2 and (count * needed > 2 * room or count * largest > 2 * LARGEST):
        count //= 2
    return count


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
