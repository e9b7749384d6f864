"""The folder of one run: writes its files, and reads back what resuming needs."""

from __future__ import annotations

import platform
import shutil
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel
from safetensors.numpy import save_file

from tlkit.data.dataset import Dataset
from tlkit.data.images import Image
from tlkit.errors import RunFolderError
from tlkit.experiment.log import AnyEvent, append_event, read_events
from tlkit.experiment.plan import Plan
from tlkit.experiment.results import Results, RunDescription
from tlkit.experiment.tables import (
    MANY_ROWS,
    MAX_COLUMNS,
    PROBABILITIES,
    prediction_columns,
    read_prediction_rows,
    read_rows,
    write_parquet,
)
from tlkit.parts.task import join_labels
from tlkit.recipe.recipe import Recipe
from tlkit.runtime.distributed import process_state
from tlkit.training.history import EpochMetrics
from tlkit.utils.atomic_write import atomic_write
from tlkit.utils.csv_cells import write_rows
from tlkit.utils.json_files import read_json, read_text, write_json

#: The libraries that numbers depend on, besides the recipe.
LIBRARIES = (
    "tlkit",
    "torch",
    "timm",
    "albumentations",
    "accelerate",
    "numpy",
    "opencv-python-headless",
    "pillow",
    "scikit-learn",
    "scipy",
)


@dataclass(frozen=True)
class SplitProbabilities:
    """A classifier's probabilities for the images of one split.

    Attributes:
        split: the split's name.
        images: its images.
        probabilities: ``(N, classes)``.
        answers: whether an image is said to have each class, ``(N, classes)``; None: the most probable one.
    """

    split: str
    images: Sequence[Image]
    probabilities: NDArray[np.float64]
    answers: NDArray[np.bool_] | None = None

    def predicted(self, classes: Sequence[str]) -> list[str]:
        """Returns what is said of each image: a class, or several in one cell."""
        if self.answers is None:
            return [classes[index] for index in self.probabilities.argmax(1)]
        return [join_labels(classes[index] for index in np.flatnonzero(row).tolist()) for row in self.answers]


class RunFolder:
    """Writes and reads a run's files, each replaced as a whole.

    Attributes:
        path: the folder.
        writes: whether this process writes: only the main process does.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.writes = process_state().is_main_process

    def resume(self, recipe: Recipe) -> Results | None:
        """Returns the results of phases that an earlier execution of this run finished, if there are any.

        Raises:
            RunFolderError: the folder belongs to another recipe, or its results cannot be read.
        """
        if not (self.path / "recipe.toml").is_file():
            return None
        self.prepare(recipe)
        results = self.results()
        names = {phase.name for phase in recipe.phases}
        for result in results.phases if results else ():
            if result.name not in names:
                raise RunFolderError(
                    f"{self.path / 'results.json'} cannot be read: the recipe has no phase {result.name!r}"
                )
        return results

    def prepare(self, recipe: Recipe) -> None:
        """Writes the recipe, or accepts a folder that this recipe began, perhaps with another engine.

        Raises:
            RunFolderError: it belongs to another recipe, or cannot be written.
        """
        file = self.path / "recipe.toml"
        if file.is_file():
            if not recipe.is_same_as(read_text(file, RunFolderError)):
                raise RunFolderError(
                    f"{self.path} holds a run of another recipe (see its recipe.toml): name another --out"
                )
        elif self.writes:
            with self._writing("recipe.toml"), atomic_write(file) as temporary:
                temporary.write_text(recipe.to_toml(), encoding="utf-8")

    def phase(self, name: str) -> Path:
        """Returns a phase's own folder."""
        return self.path / "phases" / name

    def model(self, name: str) -> Path:
        """Returns the model folder that a phase ends with."""
        return self.phase(name) / "model"

    def checkpoint(self, name: str) -> Path:
        """Returns the folder of a phase's checkpoint, while the phase lasts."""
        return self.phase(name) / "resume"

    def folds(self, name: str) -> Path:
        """Returns the folder of what a phase's folds ended with, while the run lasts."""
        return self.phase(name) / "folds"

    def results(self) -> Results | None:
        """Reads results.json, as far as the run has come; None before the first phase has ended.

        Raises:
            RunFolderError: it cannot be read.
        """
        path = self.path / "results.json"
        return read_json(path, Results, RunFolderError) if path.is_file() else None

    def is_finished(self) -> bool:
        """Returns whether run.json says that all phases have ended.

        Raises:
            RunFolderError: it cannot be read.
        """
        path = self.path / "run.json"
        return path.is_file() and read_json(path, RunDescription, RunFolderError).finished

    def write_results(self, results: Results) -> None:
        """Writes results.json."""
        self._write_json("results.json", results)

    def describe(self, recipe: Recipe, device: str, *, finished: bool) -> None:
        """Writes run.json."""
        import torch

        description = RunDescription(
            versions={name: version(name) for name in LIBRARIES},
            python=platform.python_version(),
            machine=f"{platform.system()} {platform.machine()}",
            device=device,
            threads=torch.get_num_threads(),
            seed=recipe.seed,
            command=tuple(sys.argv),
            finished=finished,
        )
        self._write_json("run.json", description)

    def events(self) -> list[AnyEvent]:
        """Returns the events of the executions so far.

        Raises:
            RunFolderError: log.jsonl is damaged.
        """
        return read_events(self.path / "log.jsonl")

    def log(self, event: AnyEvent) -> None:
        """Appends an event to log.jsonl."""
        if self.writes:
            with self._writing("log.jsonl"):
                append_event(self.path / "log.jsonl", event)

    def record_plan(self, plan: Plan) -> None:
        """Writes plan.json; phases that were planned before, when others were run, stay in it."""
        path = self.path / "plan.json"
        names = {phase.name for phase in plan.phases}
        earlier = read_json(path, Plan, RunFolderError).phases if path.is_file() else ()
        others = (phase for phase in earlier if phase.name not in names)
        self._write_json("plan.json", plan.model_copy(update={"phases": (*others, *plan.phases)}))

    def record_splits(self, dataset: Dataset) -> None:
        """Writes splits.csv, or checks that the images are those that the run began with.

        Raises:
            RunFolderError: they are not.
        """
        splits, classes = dataset.splits, dataset.classes
        rows = [["split", "id", "label", "width", "height", "sha256", "folds"]]
        assigned = dataset.folds.assignment.T.tolist() if dataset.folds else []
        for name, images in (
            ("train", splits.train),
            ("val", splits.val),
            ("test", splits.test),
            ("unlabelled", dataset.unlabelled),
        ):
            for index, image in enumerate(images):
                folds = " ".join(map(str, assigned[index])) if assigned and name == "train" else ""
                size = str(image.width), str(image.height)
                rows.append([name, image.sample.id, _label(image, classes), *size, image.sha256, folds])
        path = self.path / "splits.csv"
        if not path.is_file():
            self._write_csv("splits.csv", rows)
            return
        if [row for _, row in read_rows(path, rows[0])] != rows[1:]:
            raise RunFolderError(
                f"{self.path}: the images are not those that this run began with (see splits.csv): "
                "name another --out"
            )

    def write_history(self, phase: str, epochs: Sequence[EpochMetrics], columns: Sequence[str]) -> None:
        """Writes history.csv, a row per epoch."""
        rows = [[getattr(metrics, name) for name in columns] for metrics in epochs]
        self._write_csv(f"phases/{phase}/history.csv", [columns, *rows])

    def write_predictions(
        self, phase: str, classes: Sequence[str], parts: Iterable[SplitProbabilities]
    ) -> None:
        """Writes predictions.csv: split, id, label, predicted, one probability ``p_…`` per class.

        Of many classes, the probabilities are in probabilities.safetensors, ``(N, classes)`` for each split.
        """
        parts, columns = list(parts), prediction_columns(classes)
        rows: list[Sequence[object]] = [columns]
        for part in parts:
            shown = part.probabilities
            if len(classes) > MAX_COLUMNS:
                shown = shown.max(1, keepdims=True)
            predictions = part.predicted(classes)
            for image, row, predicted in zip(part.images, shown.tolist(), predictions, strict=True):
                numbers = [f"{value:.7g}" for value in row]
                rows.append([part.split, image.sample.id, _label(image, classes), predicted, *numbers])
        self._write_csv(f"phases/{phase}/predictions.csv", rows)
        if self.writes and len(classes) > MAX_COLUMNS:
            name = f"phases/{phase}/{PROBABILITIES}"
            with self._writing(name), atomic_write(self.path / name) as temporary:
                save_file(
                    {part.split: np.ascontiguousarray(part.probabilities, np.float32) for part in parts},
                    temporary,
                )

    def copy_predictions(self, source: str, phase: str) -> None:
        """Writes the predictions of an earlier phase as those of one that kept its weights."""
        if self.writes:
            for file in ("predictions.csv", "predictions.parquet", PROBABILITIES):
                name = f"phases/{phase}/{file}"
                if (self.phase(source) / file).is_file():
                    with self._writing(name), atomic_write(self.path / name) as temporary:
                        shutil.copyfile(self.phase(source) / file, temporary)

    def correct(self, phase: str, part: str, classes: Sequence[str]) -> dict[str, bool]:
        """Returns whether each image of a part that a phase predicts, by id, is predicted correctly.

        Raises:
            RunFolderError: predictions.csv cannot be read.
        """
        rows = read_prediction_rows(self.phase(phase) / "predictions.csv", classes)
        return {row[1]: row[2] == row[3] for _, row in rows if row[0] == part}

    def _write_csv(self, name: str, rows: Sequence[Sequence[object]]) -> None:
        """Writes a CSV file; beside a long one, the same in Parquet, which is there once the CSV file is."""
        if not self.writes:
            return
        path = self.path / name
        with self._writing(name), atomic_write(path) as temporary:
            with temporary.open("w", newline="", encoding="utf-8") as file:
                write_rows(file, rows)
            if len(rows) - 1 > MANY_ROWS and find_spec("pyarrow") is not None:
                with atomic_write(path.with_suffix(".parquet")) as table:
                    write_parquet(temporary, table)

    def _write_json(self, name: str, value: BaseModel) -> None:
        if self.writes:
            with self._writing(name):
                write_json(self.path / name, value)

    @contextmanager
    def _writing(self, name: str) -> Iterator[None]:
        """Turns errors of the disk into RunFolderError; what was written before stays readable."""
        try:
            yield
        except OSError as error:
            raise RunFolderError(
                f"{self.path / name} cannot be written: {error.strerror or error}. Free some space there, "
                f"and start the same command again with --out {self.path}: finished phases are kept"
            ) from error


def _label(image: Image, classes: Sequence[str]) -> str:
    return join_labels(classes[label] for label in image.sample.class_indices)
