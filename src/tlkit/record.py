"""A run, read back from its folder: whatever is there, finished or cut short."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tlkit.components import Sample, Source
from tlkit.errors import RunFolderError, TlkitError, close_matches
from tlkit.planning import find_source
from tlkit.plugins import Registry
from tlkit.recipe import Phase, Recipe, read_recipe

#: Rows of predictions.csv that are text at a time: many classes make them long.
CHUNK = 2000
#: With fewer image views than this the frozen pass has no rate to speak of.
ENOUGH = 200


@dataclass(frozen=True, slots=True)
class ImageRow:
    """An image as splits.csv has it; `label` is None for one without."""

    split: str
    id: str
    label: str | None
    width: int
    height: int
    sha256: str


@dataclass(frozen=True)
class Predicted:
    """What a phase made of the images of one split.

    Attributes:
        ids: of the images.
        labels: true classes, int64 ``(N,)``; -1 for an image without a label.
        probabilities: float32 ``(N, classes)``.
    """

    ids: list[str]
    labels: NDArray[np.int64]
    probabilities: NDArray[np.float32]

    @property
    def classes(self) -> NDArray[np.int64]:
        """The most probable class of each image, ``(N,)``."""
        found: NDArray[np.int64] = self.probabilities.argmax(1)
        return found

    @property
    def confidence(self) -> NDArray[np.float32]:
        """That class's probability, ``(N,)``."""
        found: NDArray[np.float32] = self.probabilities.max(1)
        return found

    @property
    def right(self) -> NDArray[np.bool_]:
        """Whether it is the true class, ``(N,)``."""
        found: NDArray[np.bool_] = self.classes == self.labels
        return found


@dataclass(frozen=True)
class PhaseRecord:
    """What a run folder holds of a phase.

    Attributes:
        phase: the recipe's row.
        folder: the phase's own.
        plan: its entry in plan.json, or None.
        result: its entry in results.json, or None while it has not ended.
        history: a row per epoch so far, from history.csv or, of a phase cut short, from the log.
        classes: names, in the order of probabilities.
    """

    phase: Phase
    folder: Path
    plan: dict[str, Any] | None
    result: dict[str, Any] | None
    history: list[dict[str, float]]
    classes: tuple[str, ...]

    @property
    def name(self) -> str:
        """The phase's name."""
        return self.phase.name

    @cached_property
    def predictions(self) -> dict[str, Predicted]:
        """predictions.csv by split; empty where it is not there."""
        path = self.folder / "predictions.csv"
        try:
            return _read_predictions(path, self.classes) if path.is_file() else {}
        except (OSError, ValueError, KeyError, StopIteration, csv.Error) as error:
            raise RunFolderError(f"{path} cannot be read: {error}") from error


class RunRecord:
    """A run folder's content.

    Attributes:
        folder: where it is.
        recipe: what was run.
        results: results.json, or None before the first phase has ended.
        plan: plan.json, or None.
        about: run.json; empty before the plan was made.
        images: the rows of splits.csv.
        phases: of the recipe, in its order.
    """

    def __init__(self, folder: Path) -> None:
        """Reads a run folder.

        Raises:
            RunFolderError: it is none, or a file in it is damaged.
        """
        if not (folder / "recipe.toml").is_file():
            there = "is no run folder" if folder.is_dir() else "is not there"
            siblings = [each.name for each in folder.parent.iterdir()] if folder.parent.is_dir() else []
            raise RunFolderError(f"{folder} {there}{close_matches(folder.name, siblings)}")
        self.folder = folder
        self.recipe: Recipe = read_recipe(folder)
        self.results: dict[str, Any] | None = self._json("results.json")
        self.plan: dict[str, Any] | None = self._json("plan.json")
        self.about: dict[str, Any] = self._json("run.json") or {}
        known = self.results or self.plan or {}
        self.classes: tuple[str, ...] = tuple(known.get("classes", ()))
        self.images = self._images()
        self._log = self._events()
        self.phases = [self._phase(phase) for phase in self.recipe.phases]

    @property
    def done(self) -> list[PhaseRecord]:
        """The phases that have ended."""
        return [phase for phase in self.phases if phase.result is not None]

    def view_seconds(self) -> float | None:
        """How long one image view took in the frozen pass; None if too few were computed to say."""
        passes = [event for event in self._log if event["event"] == "features"]
        views = sum(sum(event["computed"].values()) for event in passes)
        return sum(event["seconds"] for event in passes) / views if views >= ENOUGH else None

    def _json(self, name: str) -> dict[str, Any] | None:
        path = self.folder / name
        if not path.is_file():
            return None
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise RunFolderError(f"{path} cannot be read: {error}") from error
        if not isinstance(found, dict):
            raise RunFolderError(f"{path} cannot be read: it holds no table")
        return found

    def _images(self) -> list[ImageRow]:
        path = self.folder / "splits.csv"
        if not path.is_file():
            return []
        try:
            with path.open(newline="", encoding="utf-8") as file:
                return [
                    ImageRow(
                        row["split"],
                        row["id"],
                        row["label"] or None,
                        int(row["width"]),
                        int(row["height"]),
                        row["sha256"],
                    )
                    for row in csv.DictReader(file)
                ]
        except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
            raise RunFolderError(f"{path} cannot be read: {error}") from error

    def _events(self) -> list[dict[str, Any]]:
        """log.jsonl; a last line that was cut short is passed over."""
        path = self.folder / "log.jsonl"
        events: list[dict[str, Any]] = []
        for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else ():
            try:
                events.append(json.loads(line))
            except ValueError:
                continue
        return events

    def _phase(self, phase: Phase) -> PhaseRecord:
        folder = self.folder / "phases" / phase.name
        results = {result["name"]: result for result in (self.results or {}).get("phases", ())}
        plans = {plan["name"]: plan for plan in (self.plan or {}).get("phases", ())}
        history = _read_history(folder / "history.csv")
        if not history:
            found = {
                int(event["epoch"]): event
                for event in self._log
                if event["event"] == "epoch" and event["phase"] == phase.name
            }
            history = [found[epoch] for epoch in sorted(found)]
        return PhaseRecord(
            phase, folder, plans.get(phase.name), results.get(phase.name), history, self.classes
        )


def image_files(recipe: Recipe, registry: Registry) -> tuple[dict[str, Sample], Source | None, str | None]:
    """Where a run's images are: the samples by id, their source, and why they cannot be had, or None."""
    try:
        if recipe.data is None:
            return {}, None, "the recipe names no data"
        source = find_source(recipe.data, registry)
    except TlkitError as error:  # the images, or the plugin, have gone elsewhere
        return {}, None, str(error)
    return {sample.id: sample for sample in (*source.samples, *source.unlabelled)}, source, None


def _read_history(path: Path) -> list[dict[str, float]]:
    if not path.is_file():
        return []
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]
    except (OSError, ValueError, TypeError, csv.Error) as error:
        raise RunFolderError(f"{path} cannot be read: {error}") from error


def _read_predictions(path: Path, classes: Sequence[str]) -> dict[str, Predicted]:
    """predictions.csv by split, its numbers gathered in chunks, since as text they are large."""
    places = {name: place for place, name in enumerate(classes)}
    ids: dict[str, list[str]] = {}
    labels: dict[str, list[int]] = {}
    numbers: dict[str, list[NDArray[np.float32]]] = {}
    with path.open(newline="", encoding="utf-8") as file:
        rows = csv.reader(file)
        if next(rows)[4:] != [f"p_{name}" for name in classes]:
            raise ValueError("its columns are not the run's classes")
        for split, chunk in _chunks(rows):
            ids.setdefault(split, []).extend(row[1] for row in chunk)
            labels.setdefault(split, []).extend(places[row[2]] if row[2] else -1 for row in chunk)
            numbers.setdefault(split, []).append(np.array([row[4:] for row in chunk], np.float32))
    return {
        split: Predicted(ids[split], np.array(labels[split], np.int64), np.concatenate(numbers[split]))
        for split in ids
    }


def _chunks(rows: Iterable[list[str]]) -> Iterable[tuple[str, list[list[str]]]]:
    """Rows of the same split, at most CHUNK at a time."""
    chunk: list[list[str]] = []
    for row in rows:
        if chunk and (len(chunk) == CHUNK or chunk[0][0] != row[0]):
            yield chunk[0][0], chunk
            chunk = []
        chunk.append(row)
    if chunk:
        yield chunk[0][0], chunk
