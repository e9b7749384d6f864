"""A run read back from its folder: everything that is there, finished or interrupted."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel
from safetensors import SafetensorError, safe_open

from tlkit.data.images import MAX_PIXELS
from tlkit.errors import RunFolderError, TlkitError, close_matches
from tlkit.experiment.log import AnyEvent, EpochEnded, FeaturesComputed, read_events
from tlkit.experiment.plan import DataSummary, PhasePlan, Plan
from tlkit.experiment.results import PhaseResult, Results, RunDescription
from tlkit.experiment.sources import make_source
from tlkit.experiment.tables import (
    MAX_COLUMNS,
    PARTS,
    PREDICTION_COLUMNS,
    PROBABILITIES,
    check_value,
    malformed,
    read_prediction_rows,
    read_rows,
)
from tlkit.parts.source import Sample, Source
from tlkit.parts.task import Task, split_labels
from tlkit.plugins.registry import Registry
from tlkit.recipe.recipe import Phase, Recipe, read_recipe
from tlkit.training.history import COLUMNS, EpochMetrics
from tlkit.utils.connectivity import offline
from tlkit.utils.json_files import read_json
from tlkit.utils.regular_files import check_regular

Model = TypeVar("Model", bound=BaseModel)
#: A line number and the cells of that line.
Row = tuple[int, list[str]]

#: How far a row's probabilities may sum to something else than 1, for they are rounded.
SUM_TOLERANCE = 1e-3
NO_PROBABILITIES = "its probabilities are negative, or do not sum to 1"
#: Rows of predictions.csv that are held as text at a time: with many classes they are long.
CHUNK = 2000
#: The minimum number of image views from which the frozen pass's rate is estimated.
ENOUGH_VIEWS = 200


@dataclass(frozen=True, slots=True)
class ImageRow:
    """A row of splits.csv.

    `label` is None for an image without one; with several per image, it has all of them in one cell.
    `folds` is a training image's fold in each repeat of a cross-validation, -1 where it is trained on in all
    folds, and empty without one.
    """

    split: str
    id: str
    label: str | None
    width: int
    height: int
    sha256: str
    folds: str


@dataclass(frozen=True)
class SplitPredictions:
    """A phase's predictions for the images of one split.

    Attributes:
        ids: the images' ids.
        labels: true classes, int64 ``(N,)``; -1 for an image without a label.
        probabilities: float32 ``(N, classes)``.
    """

    ids: list[str]
    labels: NDArray[np.int64]
    probabilities: NDArray[np.float32]

    @cached_property
    def predicted(self) -> NDArray[np.int64]:
        """The most probable class of each image, ``(N,)``."""
        predicted: NDArray[np.int64] = self.probabilities.argmax(1)
        return predicted

    @cached_property
    def confidence(self) -> NDArray[np.float32]:
        """The probability of that class, ``(N,)``."""
        confidence: NDArray[np.float32] = self.probabilities.max(1)
        return confidence

    @cached_property
    def correct(self) -> NDArray[np.bool_]:
        """Whether that class is the label, ``(N,)``."""
        correct: NDArray[np.bool_] = self.predicted == self.labels
        return correct


@dataclass(frozen=True)
class PhaseRecord:
    """What a run folder has of a phase.

    Attributes:
        phase: the recipe's row.
        folder: the phase's own folder.
        plan: its entry in plan.json, or None.
        result: its entry in results.json, or None while it has not ended.
        history: the epochs so far, from history.csv or, of an interrupted phase, from the log.
        classes: class names, in the order of probabilities.
        images: the split of each of the run's images, by id.
    """

    phase: Phase
    folder: Path
    plan: PhasePlan | None
    result: PhaseResult | None
    history: list[EpochMetrics]
    classes: tuple[str, ...]
    images: Mapping[str, str]

    @property
    def name(self) -> str:
        """The phase's name."""
        return self.phase.name

    @cached_property
    def predictions(self) -> dict[str, SplitPredictions]:
        """predictions.csv by split; empty where the file is missing.

        Raises:
            RunFolderError: it cannot be read.
        """
        path = self.folder / "predictions.csv"
        return _read_predictions(path, self.classes, self.images) if path.is_file() else {}

    @property
    def measured(self) -> SplitPredictions | None:
        """The predictions of test images, or else those out of fold; None where the file is missing."""
        return self.predictions.get("test") or self.predictions.get("out-of-fold")


class RunRecord:
    """A run folder's content.

    Attributes:
        folder: the run folder.
        recipe: the recipe that was run.
        results: results.json, or None before the first phase has ended.
        plan: plan.json, or None before the plan was made.
        description: run.json, or None before the plan was made.
        classes: class names; empty before the plan was made.
        images: the rows of splits.csv.
        phases: the recipe's phases, in order.
    """

    def __init__(self, folder: Path) -> None:
        """Reads a run folder.

        Raises:
            RunFolderError: it is not a run folder, or a file in it cannot be read.
        """
        check_is_run(folder)
        self.folder = folder
        self.recipe: Recipe = read_recipe(folder)
        self.results = self._read("results.json", Results)
        self.plan = self._read("plan.json", Plan)
        self.description = self._read("run.json", RunDescription)
        source = self.results or self.plan
        self.classes = source.classes if source else ()
        self.images = _read_images(folder / "splits.csv", self.classes, self.recipe.task)
        self._events = read_events(folder / "log.jsonl")
        split_of = {image.id: image.split for image in self.images}
        self.phases = [self._phase(phase, split_of) for phase in self.recipe.phases]

    @property
    def done(self) -> list[PhaseRecord]:
        """The phases that have ended."""
        return [phase for phase in self.phases if phase.result is not None]

    @property
    def phase_results(self) -> list[PhaseResult]:
        """The results of the phases that have ended."""
        return [phase.result for phase in self.phases if phase.result is not None]

    @property
    def final(self) -> PhaseRecord | None:
        """The phase that trained the classifier of the last phase that has ended; None before any has."""
        return self.trained_by(self.done[-1]) if self.done else None

    def trained_by(self, phase: PhaseRecord) -> PhaseRecord:
        """Returns the phase that trained a phase's weights: itself, unless they were not taken."""
        done = {other.name: other for other in self.done}
        while phase.result is not None and not phase.result.is_taken and phase.phase.start_from in done:
            phase = done[phase.phase.start_from]
        return phase

    @property
    def data(self) -> DataSummary | None:
        """How many images the run has; None before the plan was made."""
        source = self.results or self.plan
        return source.data if source else None

    def seconds_per_view(self) -> float | None:
        """Returns the frozen pass's seconds per image view; None if too few were computed to tell."""
        passes = [event for event in self._events if isinstance(event, FeaturesComputed)]
        views = sum(sum(event.computed.values()) for event in passes)
        return sum(event.seconds for event in passes) / views if views >= ENOUGH_VIEWS else None

    def _read(self, name: str, model: type[Model]) -> Model | None:
        path = self.folder / name
        return read_json(path, model, RunFolderError) if path.is_file() else None

    def _phase(self, phase: Phase, images: Mapping[str, str]) -> PhaseRecord:
        folder = self.folder / "phases" / phase.name
        plans = {plan.name: plan for plan in self.plan.phases} if self.plan else {}
        result = self.results.phase(phase.name) if self.results else None
        history = _read_history(folder / "history.csv", COLUMNS[self.recipe.task]) or _history_from(
            self._events, phase.name
        )
        return PhaseRecord(phase, folder, plans.get(phase.name), result, history, self.classes, images)


def check_is_run(folder: Path) -> None:
    """Raises RunFolderError if it is not a run folder."""
    if not (folder / "recipe.toml").is_file():
        problem = "is not a run folder" if folder.is_dir() else "does not exist"
        if (folder / "model.safetensors").is_file():
            problem = "is a model folder, and this takes a run folder: the results are there"
        siblings = [path.name for path in folder.parent.iterdir()] if folder.parent.is_dir() else []
        raise RunFolderError(f"{folder} {problem}{close_matches(folder.name, siblings)}")


def find_image_files(
    recipe: Recipe, registry: Registry
) -> tuple[dict[str, Sample], Source | None, str | None]:
    """Finds a run's images again.

    Returns:
        The samples by id, their source, and why they cannot be found, or None.
    """
    try:
        if recipe.data is None:
            return {}, None, "the recipe names no data"
        with offline():  # the run may be a stranger's
            source = make_source(recipe.data, registry, recipe.task)
    except TlkitError as error:  # the images, or the plugin, are no longer there
        return {}, None, str(error)
    return {sample.id: sample for sample in (*source.samples, *source.unlabelled)}, source, None


def _history_from(events: Iterable[AnyEvent], phase: str) -> list[EpochMetrics]:
    """Returns the epochs in a log; of one that was trained again after an interruption, the last."""
    epochs = {
        event.metrics.epoch: event.metrics
        for event in events
        if isinstance(event, EpochEnded) and event.phase == phase
    }
    return [epochs[number] for number in sorted(epochs)]


def _read_images(path: Path, classes: Sequence[str], task: Task) -> list[ImageRow]:
    if not path.is_file():
        return []
    images, known = [], frozenset(classes)
    for line, row in read_rows(path, [field.name for field in fields(ImageRow)]):
        split, name, label, width, height, sha256, folds = row
        check_value(path, line, "split", split, PARTS)
        if label and classes:  # without a plan, classes are not known
            for name_of_class in split_labels(label) if task == "multilabel" else (label,):
                check_value(path, line, "label", name_of_class, known)
        try:
            size = int(width), int(height)
        except ValueError as error:
            raise malformed(path, line, str(error)) from error
        if not 0 < min(size) <= max(size) <= MAX_PIXELS:
            raise malformed(path, line, f"no image has {width}x{height} pixels")
        images.append(ImageRow(split, name, label or None, *size, sha256, folds))
    return images


def _read_history(path: Path, columns: Sequence[str]) -> list[EpochMetrics]:
    if not path.is_file():
        return []
    epochs: list[EpochMetrics] = []
    for line, row in read_rows(path, columns):
        cells = dict(zip(columns, row, strict=True))
        try:
            scores = {
                name: float(cells[name]) if cells.get(name) else None
                for name in (field.name for field in fields(EpochMetrics))
                if name.startswith("val_") or name == "train_accuracy"
            }
            metrics = EpochMetrics(
                epoch=int(cells["epoch"]),
                train_loss=float(cells["train_loss"]),
                lr=float(cells["lr"]),
                seconds=float(cells["seconds"]),
                **scores,
            )
        except ValueError as error:
            raise malformed(path, line, str(error)) from error
        if metrics.epoch != len(epochs) + 1 or not all(
            value is None or math.isfinite(value) for value in astuple(metrics)
        ):
            raise malformed(path, line, "it is not the next epoch, or has a number that is not finite")
        epochs.append(metrics)
    return epochs


def _read_predictions(
    path: Path, classes: Sequence[str], images: Mapping[str, str]
) -> dict[str, SplitPredictions]:
    """Reads predictions.csv by split; `images` has the split of each image by its id."""
    indices = {"": -1, **{name: index for index, name in enumerate(classes)}}
    ids: dict[str, list[str]] = {}
    labels: dict[str, list[int]] = {}
    numbers: dict[str, list[NDArray[np.float32]]] = {}
    has_all = len(classes) <= MAX_COLUMNS
    for split, chunk in _chunks(read_prediction_rows(path, classes)):
        for line, row in chunk:
            if images and images.get(row[1]) != ("train" if split == "out-of-fold" else split):
                raise malformed(path, line, f"splits.csv has no image {row[1]!r} in {split}")
        ids.setdefault(split, []).extend(row[1] for _, row in chunk)
        labels.setdefault(split, []).extend(indices[row[2]] for _, row in chunk)
        if has_all:
            numbers.setdefault(split, []).append(_probabilities(path, chunk))
    probabilities = {split: np.concatenate(parts) for split, parts in numbers.items()}
    if not has_all:
        counts = {split: len(names) for split, names in ids.items()}
        probabilities = _read_probabilities(path.with_name(PROBABILITIES), counts, len(classes))
    return {
        split: SplitPredictions(ids[split], np.array(labels[split], np.int64), probabilities[split])
        for split in ids
    }


def _read_probabilities(
    path: Path, counts: Mapping[str, int], classes: int
) -> dict[str, NDArray[np.float32]]:
    """Reads the probabilities of many classes, given the number of images of each split."""
    try:
        check_regular(path)
        with safe_open(path, "np") as file:
            for split, count in counts.items():
                stored, shape = file.get_slice(split), (count, classes)
                if (stored.get_dtype(), tuple(stored.get_shape())) != ("F32", shape):
                    raise RunFolderError(
                        f"{path} cannot be read: {split} must be float32 of the shape {shape}"
                    )
            probabilities = {split: file.get_tensor(split) for split in counts}
    except (OSError, SafetensorError) as error:
        raise RunFolderError(f"{path} cannot be read: {error}") from error
    for split, values in probabilities.items():
        if (wrong := _are_wrong(values)).any():
            raise RunFolderError(f"{path} cannot be read: {split}, row {wrong.argmax()}: {NO_PROBABILITIES}")
    return probabilities


def _are_wrong(probabilities: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Returns which rows are no probabilities; NaN is not within the tolerance either."""
    wrong: NDArray[np.bool_] = ~(np.abs(probabilities.sum(1) - 1) < SUM_TOLERANCE)
    return wrong | (probabilities < 0).any(1)


def _probabilities(path: Path, chunk: list[Row]) -> NDArray[np.float32]:
    """Converts the probabilities of some rows at once, since there may be very many."""
    try:
        probabilities = np.array([row[len(PREDICTION_COLUMNS) :] for _, row in chunk], np.float32)
    except ValueError:
        for line, row in chunk:
            try:
                np.array(row[len(PREDICTION_COLUMNS) :], np.float32)
            except ValueError as error:
                raise malformed(path, line, str(error)) from error
        raise
    if (wrong := _are_wrong(probabilities)).any():
        raise malformed(path, chunk[int(wrong.argmax())][0], NO_PROBABILITIES)
    return probabilities


def _chunks(rows: Iterable[Row]) -> Iterator[tuple[str, list[Row]]]:
    """Groups consecutive rows of the same split, at most CHUNK at a time."""
    chunk: list[Row] = []
    for line, row in rows:
        if chunk and (len(chunk) == CHUNK or chunk[0][1][0] != row[0]):
            yield chunk[0][1][0], chunk
            chunk = []
        chunk.append((line, row))
    if chunk:
        yield chunk[0][1][0], chunk
