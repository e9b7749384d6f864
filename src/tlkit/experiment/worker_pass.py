"""The frozen pass in the workers of an engine, on this computer or on others.

A worker is given the recipe, and makes its networks itself; then it is given blocks of images, one after the
other, and writes their features to the store. What comes back is a block's number. What is missing of the
blocks of lost workers is read from the store, as after an interrupted run.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path

import torch

from tlkit.data.dataset import Dataset
from tlkit.data.images import Image
from tlkit.data.views import View, ViewReader
from tlkit.errors import EngineError
from tlkit.experiment.computing import computing_on
from tlkit.experiment.planning import prepare_phases
from tlkit.experiment.prepared_phase import PreparedPhase
from tlkit.experiment.workers import ATTEMPTS, SentToWorkers, own_process
from tlkit.feature_store.executor import BATCH, GPU_BATCH
from tlkit.feature_store.extraction import (
    Executors,
    ExtractionJob,
    FeatureRequest,
    RequestOwner,
    extract_features,
    plan_extraction,
)
from tlkit.feature_store.store import FeatureStore
from tlkit.model.partition import Boundary, PartitionedClassifier
from tlkit.parts.engine import Engine
from tlkit.plugins.loader import load_registry
from tlkit.plugins.registry import Registry
from tlkit.recipe.recipe import Phase, Recipe
from tlkit.runtime.devices import ComputeConfig, use_processors
from tlkit.runtime.process import keep_freed_memory

#: A pass is divided into at least so many blocks, of at most so many image views; each is full batches.
BLOCKS, LARGEST_BLOCK = 64, 2048


@dataclass(frozen=True)
class Block:
    """A part of a job, without its networks, so that it can be sent to a worker.

    Attributes:
        number: identifies it.
        owner: who asked for the features.
        views: the views' identities.
        targets: fingerprints of the boundaries to compute.
        images: the images.
    """

    number: int
    owner: RequestOwner
    views: tuple[str, ...]
    targets: tuple[str, ...]
    images: tuple[Image, ...]

    def __len__(self) -> int:
        """Returns the number of image views to compute."""
        return len(self.views) * len(self.images)

    def __str__(self) -> str:
        """Names it for a user, by its first image."""
        return f"the images from {self.images[0].sample.path} on"


@dataclass(frozen=True)
class StartWorker(SentToWorkers):
    """Makes a worker; it is sent to the process that the worker is made in.

    Attributes:
        recipe: the recipe.
        phases: the phases whose features are computed, with their numbers of views.
        classes: the names of the classes.
        compute: where and how precisely features are computed.
        cache: the cache folder, or the address of a store that machines share.
        lease: a file in the store, which a process that shares the folder sees; None: it has an address.
    """

    recipe: Recipe
    phases: tuple[Phase, ...]
    classes: tuple[str, ...]
    compute: ComputeConfig
    cache: str
    lease: Path | None

    def __call__(self, processors: int | None) -> Worker:
        """Makes a worker, with its networks on its device.

        Raises:
            TlkitError: it would not compute the features that are asked for, or not write them to the store.
        """
        if processors is not None:
            use_processors(processors)
        keep_freed_memory()
        os.environ["TLKIT_CACHE"] = self.cache
        self._check()
        # a worker sees its own GPU alone, so that the number may be another one
        compute = replace(self.compute, device=torch.empty(0, device=self.compute.device.type).device)
        registry = load_registry()
        prepared = prepare_phases(self.recipe, self.phases, self.classes, registry, compute.device)
        return Worker(FeatureStore(), compute, prepared)

    def _check(self) -> None:
        if self.lease is not None and not self.lease.exists():
            raise EngineError(
                f"a worker does not see the store {self.lease.parents[1]}: name a folder in TLKIT_CACHE that "
                "all computers share"
            )
        kind = self.compute.device.type
        if kind == "cuda" and not torch.cuda.is_available():
            raise EngineError(
                "a worker has no GPU, on which this computer computes: give each worker one in "
                "compute.engine, or compute on processors with --device cpu"
            )


class Worker:
    """Computes blocks of images with networks of its own."""

    def __init__(self, store: FeatureStore, compute: ComputeConfig, phases: Sequence[PreparedPhase]) -> None:
        """Moves the phases' networks to the device, where they stay."""
        self._store = store
        self._compute = compute
        self._reader = ViewReader()
        self._executors = Executors(compute)
        self._views: dict[str, View] = {}
        self._targets: dict[str, tuple[PartitionedClassifier, Boundary]] = {}
        self._on_device = ExitStack()
        for prepared in phases:
            self._on_device.enter_context(prepared.on_device())
            for view in (*prepared.evaluated_views, *prepared.views):
                self._views[view.identity] = view
            if isinstance(network := prepared.network, PartitionedClassifier):
                for boundary in network.boundaries:
                    self._targets[boundary.fingerprint] = network, boundary

    def __call__(self, block: Block) -> int:
        """Computes a block and writes its features to the store; returns its number.

        Raises:
            TlkitError: an image cannot be read any more, the store cannot be written, or other versions than
                where the block was made would lead to other features.
        """
        unknown = {*block.views, *block.targets} - (self._views.keys() | self._targets.keys())
        if unknown:
            raise EngineError(
                "a worker would compute other features than this computer: have the same versions of timm, "
                "Pillow and the plugins, and the same weights, on all computers"
            )
        views = tuple(self._views[identity] for identity in block.views)
        targets = {fingerprint: self._targets[fingerprint] for fingerprint in block.targets}
        job = ExtractionJob(block.owner, views, block.images, targets)
        with computing_on(self._compute.device):
            extract_features([job], self._store, self._compute, self._reader, executors=self._executors)
        return block.number


@dataclass(frozen=True)
class RecipeEngine:
    """An engine, and the recipe that its workers make their networks from.

    Attributes:
        engine: the engine.
        recipe: the recipe.
    """

    engine: Engine
    recipe: Recipe

    def work(
        self,
        phases: Sequence[PreparedPhase],
        dataset: Dataset,
        requests: Sequence[FeatureRequest],
        compute: ComputeConfig,
        store: FeatureStore,
    ) -> WorkerPass:
        """Returns what computes these phases' features in the engine's workers."""
        start = StartWorker(
            recipe=self.recipe,
            phases=tuple(prepared.phase for prepared in phases),
            classes=tuple(dataset.classes),
            compute=compute,
            cache=store.remote.address if store.remote else str(store.folder.parent.absolute()),
            lease=None if store.remote else store.lease_file.absolute(),
        )
        return WorkerPass(self.engine, start, requests, store)


def make_engine(recipe: Recipe, registry: Registry) -> RecipeEngine | None:
    """Returns the engine that a recipe names; None: features are computed in this process.

    Raises:
        PluginError: it cannot be made.
    """
    if recipe.engine is None:
        return None
    return RecipeEngine(registry.make("engine", recipe.engine.name, recipe.engine.options), recipe)


@dataclass(frozen=True)
class WorkerPass:
    """Has an engine's workers compute what is missing of requested features.

    Attributes:
        engine: the engine.
        start: makes a worker.
        requests: the requested features.
        store: where they are stored.
    """

    engine: Engine
    start: StartWorker
    requests: Sequence[FeatureRequest]
    store: FeatureStore

    def compute(
        self,
        jobs: Sequence[ExtractionJob],
        tick: Callable[[int], object],
        note: Callable[[str], object],
    ) -> dict[RequestOwner, int]:
        """Computes and stores the features of planned jobs.

        Args:
            jobs: the jobs.
            tick: called after each block with the number of image views done.
            note: called with what the user should know.

        Returns:
            The number of image views computed for each owner.

        Raises:
            EngineError: workers are lost again and again, and nothing is computed.
        """
        with own_process():
            self._compute_all(jobs, tick, note)
        computed: dict[RequestOwner, int] = {}
        for job in jobs:
            computed[job.owner] = computed.get(job.owner, 0) + len(job)
        return computed

    def _compute_all(
        self, jobs: Sequence[ExtractionJob], tick: Callable[[int], object], note: Callable[[str], object]
    ) -> None:
        """Has blocks computed, and those that are lost computed again."""
        missing, attempts = list(jobs), 0
        while missing:
            before = sum(map(len, missing))
            lost = self._compute_blocks(divide(missing, self.start.compute), tick, note)
            missing = self._missing(lost)
            after = sum(map(len, missing))
            tick(sum(map(len, lost)) - after)
            attempts = attempts + 1 if after == before else 0
            if attempts == ATTEMPTS:
                raise EngineError(
                    f"{after:,} image views are not computed: their workers are always lost. The first image "
                    f"is {missing[0].images[0].sample.path}"
                )
            if missing:
                note(f"blocks of images that were lost with their workers: {len(lost)}; computing the rest")

    def _compute_blocks(
        self, blocks: Sequence[Block], tick: Callable[[int], object], note: Callable[[str], object]
    ) -> list[Block]:
        """Computes blocks; returns those that are lost."""
        pending = {block.number: block for block in blocks}
        with closing(self.engine(self.start, iter(blocks), note)) as done:
            for number in done:
                block = pending.pop(number, None)
                if block is None:
                    raise EngineError(
                        f"the engine yields {number!r}, which is no block that it has yet to compute: it is "
                        "to yield what a worker returns, once for each block"
                    )
                tick(len(block))
        return list(pending.values())

    def _missing(self, lost: Sequence[Block]) -> list[ExtractionJob]:
        """Returns jobs of what the store lacks of blocks, some of which workers may have written."""
        images = {image.sha256 for block in lost for image in block.images}
        of_lost = (
            replace(request, images=tuple(image for image in request.images if image.sha256 in images))
            for request in self.requests
        )
        return plan_extraction(
            [request for request in of_lost if request.images], self.store, self.start.compute
        )


def divide(jobs: Sequence[ExtractionJob], compute: ComputeConfig) -> list[Block]:
    """Divides jobs into blocks of images."""
    batch = GPU_BATCH if compute.device.type == "cuda" else BATCH
    size = sum(map(len, jobs)) // (BLOCKS * batch) * batch
    size = min(max(size, batch), LARGEST_BLOCK)
    numbers = count()

    def blocks(job: ExtractionJob) -> Iterator[Block]:
        views = tuple(view.identity for view in job.views)
        images = max(1, size // len(views))
        for start in range(0, len(job.images), images):
            part = job.images[start : start + images]
            yield Block(next(numbers), job.owner, views, tuple(job.targets), part)

    return [block for job in jobs for block in blocks(job)]
