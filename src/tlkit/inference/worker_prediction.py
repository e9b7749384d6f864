"""Prediction in the workers of an engine, on this computer or on others.

A worker loads the model itself; then it is given blocks of paths, and returns their predictions. Blocks that
are lost with a worker are given to another one.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import chain, count
from pathlib import Path
from typing import Any, Unpack

import numpy as np
from numpy.typing import NDArray

from tlkit.errors import EngineError, PluginError
from tlkit.experiment.validation import missing_ray
from tlkit.experiment.workers import ATTEMPTS, SentToWorkers, own_process
from tlkit.inference.loading import LoadOptions, find_model, load
from tlkit.inference.prediction import Prediction
from tlkit.inference.predictor import Answers, Predictor, check_readable
from tlkit.parts.engine import Engine
from tlkit.plugins.loader import load_registry
from tlkit.runtime.devices import use_processors
from tlkit.runtime.process import keep_freed_memory
from tlkit.utils.hashing import digest, file_sha256
from tlkit.utils.sequences import batched

#: Images of a block: full batches, on processors and on GPUs, so that probabilities are those of one process.
BLOCK = 512
#: Blocks that may wait for one before them, and how many for each that is being computed.
WAITING, WAITING_EACH = 64, 4


@dataclass(frozen=True)
class Block:
    """Images to predict.

    Attributes:
        number: its place among the blocks.
        paths: the images' files.
    """

    number: int
    paths: tuple[str, ...]

    def __str__(self) -> str:
        """Names it for a user, by its first image."""
        return f"the images from {self.paths[0]} on"


@dataclass(frozen=True)
class Predicted:
    """What a worker returns for a block: its number, and the predictions in order."""

    number: int
    predictions: tuple[Prediction, ...]


@dataclass(frozen=True)
class StartPrediction(SentToWorkers):
    """Makes a worker.

    Attributes:
        model: a model folder or exported file.
        content: identifies the files of the model.
        folder: the folder that images' paths are relative to.
        top: how many classes each prediction lists.
        options: how the model predicts.
    """

    model: Path
    content: str
    folder: Path
    top: int
    options: LoadOptions

    def __call__(self, processors: int | None) -> Callable[[Block], Predicted]:
        """Makes a worker, with its network on its device.

        Raises:
            TlkitError: the model cannot be loaded, or is not the one that is to predict.
        """
        if processors is not None:
            use_processors(processors)
        keep_freed_memory()
        predictor = load(self.model, **self.options)
        if identify(self.model) != self.content:
            raise EngineError(f"a worker finds another model in {self.model}: have the same on all computers")
        return Worker(predictor, self)


@dataclass(frozen=True)
class Worker:
    """Predicts blocks of images."""

    predictor: Predictor
    start: StartPrediction

    def __call__(self, block: Block) -> Predicted:
        """Predicts the images of a block, which keep the names that they were given."""
        files = [os.path.join(self.start.folder, path) for path in block.paths]  # noqa: PTH118  many
        predictions = self.predictor.stream(files, top=self.start.top)
        named = zip(block.paths, predictions, strict=True)
        return Predicted(block.number, tuple(replace(prediction, image=path) for path, prediction in named))


def identify(model: Path) -> str:
    """Returns a hash of a model's files."""
    files = sorted(path for path in model.iterdir() if path.is_file()) if model.is_dir() else [model]
    return digest(*((file.name, file_sha256(file)) for file in files))


def stream_from_workers(
    engine: str | Mapping[str, Any],
    model: Path,
    paths: Iterable[str],
    note: Callable[[str], object],
    *,
    top: int,
    **options: Unpack[LoadOptions],
) -> Iterator[Prediction]:
    """Yields predictions one by one, in order, computed in an engine's workers; see `tlkit.predict`.

    Predictions wait in memory for those before them. Where many wait for a block that was lost, that one
    comes before any more.

    Raises:
        EngineError: workers are lost again and again, and nothing is predicted.
        PluginError: there is no such engine.
        RunFolderError: there is no model that can be loaded.
    """
    table = {"name": engine} if isinstance(engine, str) else dict(engine)
    name, registry = table.pop("name", ""), load_registry()
    if name not in registry.names("engine"):
        message = dict(registry.problems("engine", name, table))["name"]
        raise PluginError(message + missing_ray())
    chosen: Engine = registry.make("engine", name, table)
    file = find_model(model, options["phase"]).absolute()
    options["phase"] = None
    start = StartPrediction(file, identify(file), Path.cwd(), top, options)
    blocks = map(Block, count(), batched(paths, BLOCK))
    with own_process():
        for predictions in _in_order(chosen, start, blocks, note):
            yield from predictions


def collect(
    predictions: Iterable[Prediction], classes: Sequence[str], tick: Callable[[int], object]
) -> Answers:
    """Returns the probabilities and the novelty in predictions that list all classes.

    Raises:
        DataError: some images could not be read; all of these are listed.
    """
    column = {name: index for index, name in enumerate(classes)}
    rows: list[NDArray[np.float64]] = []
    novelty: list[float | None] = []
    failures: list[str] = []
    for prediction in predictions:
        tick(1)
        if prediction.error is not None:
            failures.append(f"{prediction.image}: {prediction.error}")
            continue
        row = np.empty(len(classes))
        for name, probability in prediction.top:
            row[column[name]] = probability
        rows.append(row)
        novelty.append(prediction.novelty)
    check_readable(failures)
    is_known = bool(novelty) and novelty[0] is not None
    return Answers(np.stack(rows), np.array(novelty, np.float32) if is_known else None)


def _in_order(
    engine: Engine, start: StartPrediction, blocks: Iterator[Block], note: Callable[[str], object]
) -> Iterator[tuple[Prediction, ...]]:
    """Yields the predictions of each block, and has blocks that are lost predicted again."""
    pending: dict[int, Block] = {}
    done: dict[int, tuple[Prediction, ...]] = {}
    upcoming, attempts = 0, 0
    last_lost = -1

    def taken(source: Iterator[Block]) -> Iterator[Block]:
        for block in source:
            pending[block.number] = block
            yield block
            if block.number >= last_lost and len(done) >= max(WAITING, WAITING_EACH * len(pending)):
                return  # so that the engine ends, and what it lost is computed before any more

    while (first := next(blocks, None)) is not None:
        pending[first.number] = first
        attempts += 1
        with closing(engine(start, taken(chain([first], blocks)), note)) as results:
            for result in results:
                if pending.pop(result.number, None) is None:
                    raise EngineError(
                        f"the engine yields block {result.number}, which it has not yet to compute: it is to "
                        "yield what a worker returns, once for each block"
                    )
                attempts, done[result.number] = 0, result.predictions
                while upcoming in done:
                    yield done.pop(upcoming)
                    upcoming += 1
        if pending and attempts == ATTEMPTS:
            raise EngineError(
                f"images are not predicted, because their workers are always lost: {pending[upcoming]}"
            )
        if pending:
            note(f"blocks of images that were lost with their workers: {len(pending)}; predicting them again")
        last_lost = max(pending, default=-1)
        blocks = chain(list(pending.values()), blocks)
        pending.clear()
