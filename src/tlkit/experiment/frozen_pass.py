"""Computes the cached features that phases need, and accounts for what that cost."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace

from tlkit.data.dataset import Dataset
from tlkit.data.shard import Shard
from tlkit.data.views import ViewReader
from tlkit.experiment.log import FeaturesComputed
from tlkit.experiment.observer import Observer
from tlkit.experiment.prepared_phase import PreparedPhase
from tlkit.experiment.results import FeatureUse
from tlkit.experiment.run_folder import RunFolder
from tlkit.experiment.worker_pass import RecipeEngine, WorkerPass
from tlkit.feature_store.extraction import (
    ExtractionJob,
    FeatureRequest,
    RequestOwner,
    are_missing,
    column_key,
    extract_features,
    plan_extraction,
)
from tlkit.feature_store.store import FeatureStore, cache_limit
from tlkit.runtime.devices import ComputeConfig
from tlkit.runtime.distributed import broadcast_from_main, process_state


class FrozenPass:
    """Runs prefixes over the images of a run, once for all phases that share them.

    Attributes:
        store: where features are stored.
        reader: reads images.
        computed: number of image views computed, by phase and part of the data.
        seconds: duration, by phase; a pass for several phases is divided by their numbers of image views.
        requested: number of image views that the phases so far asked for; each counts once.
    """

    def __init__(
        self,
        dataset: Dataset,
        store: FeatureStore,
        observer: Observer,
        folder: RunFolder | None = None,
        shard: Shard | None = None,
    ) -> None:
        """Prepares a pass over a run's images.

        Args:
            dataset: the images.
            store: where features are stored.
            observer: is shown progress.
            folder: the run folder to log in; None outside of a run.
            shard: the part of the images to compute; None: all.
        """
        self.store = store
        self.reader = ViewReader()
        self.computed: dict[RequestOwner, int] = {}
        self.seconds: dict[str, float] = {}
        self.requested = 0
        self._dataset = dataset
        self._folder = folder
        self._observer = observer
        self._shard = shard

    def run(self, phases: Sequence[PreparedPhase], engine: RecipeEngine | None = None) -> None:
        """Computes what the store lacks of these phases' features.

        Args:
            phases: the phases.
            engine: computes them in workers, which make the networks from the recipe; None: this process
                computes them, also those of networks that were trained meanwhile.
        """
        configs = [config for prepared in phases for config in (prepared.compute, prepared.evaluation)]
        for compute in dict.fromkeys(configs):
            with ExitStack() as devices:
                together = [
                    prepared for prepared in phases if compute in (prepared.compute, prepared.evaluation)
                ]
                for prepared in together:
                    devices.enter_context(prepared.on_device())
                self._run_together(together, compute, engine)

    def _run_together(
        self, phases: Sequence[PreparedPhase], compute: ComputeConfig, engine: RecipeEngine | None
    ) -> None:
        began = time.perf_counter()
        requests = [
            self._own(request) for prepared in phases for request in prepared.requests(self._dataset, compute)
        ]
        by_view: dict[str, set[str]] = {}
        for request in requests:
            by_view.setdefault(request.view.identity, set()).update(image.sha256 for image in request.images)
        self.requested += sum(map(len, by_view.values()))
        # decided for all processes: another run may write between two looks
        if not broadcast_from_main(are_missing(requests, self.store, compute)):
            return
        with ExitStack() as alone:
            if process_state().is_main_process:
                keys = {
                    column_key(boundary, request.view, compute)
                    for request in requests
                    for boundary in request.network.boundaries
                }
                part = f"-{self._shard.number}-of-{self._shard.count}" if self._shard else ""
                alone.enter_context(self.store.computing({key + part for key in keys}, self._wait))
            process_state().wait_for_everyone()
            # what another run has computed meanwhile is not computed again
            jobs = plan_extraction(requests, self.store, compute)
            process_state().wait_for_everyone()  # no process writes before all have planned
            workers = engine.work(phases, self._dataset, requests, compute, self.store) if engine else None
            self._compute(jobs, compute, began, workers)

    def _own(self, request: FeatureRequest) -> FeatureRequest:
        """Returns what a request asks for of this process's part of the images."""
        if self._shard is None:
            return request
        return replace(request, images=tuple(image for image in request.images if self._shard.holds(image)))

    def _wait(self) -> None:
        self._observer.note("waiting for another process, which computes features that this run needs too")

    def _compute(
        self, jobs: Sequence[ExtractionJob], compute: ComputeConfig, began: float, workers: WorkerPass | None
    ) -> None:
        total = sum(len(job) for job in jobs)
        if not total:
            return
        with self._observer.progress("frozen pass", total, "images") as tick:
            if workers is None:
                computed = extract_features(jobs, self.store, compute, self.reader, tick)
            else:
                computed = workers.compute(jobs, tick, self._observer.note)
        seconds = time.perf_counter() - began
        if self._folder is not None:
            views = {"/".join(owner): count for owner, count in computed.items()}
            self._folder.log(FeaturesComputed(computed=views, seconds=round(seconds, 3)))
        for owner, count in computed.items():
            self.computed[owner] = self.computed.get(owner, 0) + count
            share = seconds * count / total
            self.seconds[owner[0]] = self.seconds.get(owner[0], 0.0) + share
        if process_state().is_main_process:
            self.store.prune(cache_limit())

    def feature_use(self, prepared: PreparedPhase) -> FeatureUse:
        """Returns how a phase used cached features."""
        name, views = prepared.phase.name, prepared.cached_views(self._dataset)
        computed = self.computed.get((name, "train"), 0) + self.computed.get((name, "val"), 0)
        return FeatureUse(
            cached=prepared.caches_training,
            computed=computed,
            reused=views - computed,
            size=views * prepared.bytes_per_view(),
            why_not=prepared.why_not_cached,
        )
