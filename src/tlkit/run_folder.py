"""The folder of one run: what is written there, and reading it back to go on."""

from __future__ import annotations

import csv
import json
import platform
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from tlkit.data.images import Image
from tlkit.data.splits import Splits
from tlkit.devices import processes
from tlkit.errors import RunFolderError
from tlkit.planning import Plan
from tlkit.recipe import Recipe

SCHEMA = 1
#: What decides about numbers besides the recipe.
LIBRARIES = (
    "tlkit",
    "torch",
    "timm",
    "albumentations",
    "accelerate",
    "numpy",
    "opencv-python-headless",
    "pillow",
)


class RunFolder:
    """Writes and reads a run's files; whatever is replaced is replaced as a whole.

    Of several processes that run together only the first writes.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.writes = processes().is_main_process

    def prepare(self, recipe: Recipe) -> None:
        """Makes the folder, or takes up one that this very recipe began.

        Raises:
            RunFolderError: it belongs to another recipe, holds other things, or cannot be written.
        """
        text = recipe.to_toml()
        try:
            if self.writes:
                self.path.mkdir(parents=True, exist_ok=True)
            if self._file("recipe.toml").is_file():
                if self._file("recipe.toml").read_text() != text:
                    raise RunFolderError(
                        f"{self.path} holds a run of another recipe (see its recipe.toml): name another --out"
                    )
            elif self.writes and any(self.path.iterdir()):
                raise RunFolderError(f"{self.path} is not empty and holds no run: name another --out")
            else:
                self._write("recipe.toml", text)
        except OSError as error:
            raise RunFolderError(f"the run folder {self.path} cannot be written: {error}") from error

    def phase(self, name: str) -> Path:
        """A phase's own folder."""
        return self.path / "phases" / name

    def model(self, name: str) -> Path:
        """The model folder that a phase ends with."""
        return self.phase(name) / "model"

    def write_json(self, name: str, value: Any) -> None:
        """Replaces a JSON file."""
        self._write(name, json.dumps(value, indent=1) + "\n")

    def describe(self, recipe: Recipe, device: str, *, finished: bool) -> None:
        """Writes run.json: versions, machine, seed, command, and whether all phases are done."""
        about = {
            "versions": {name: version(name) for name in LIBRARIES},
            "python": platform.python_version(),
            "machine": f"{platform.system()} {platform.machine()}",
            "device": device,
            "threads": torch.get_num_threads(),
            "seed": recipe.seed,
            "command": sys.argv,
            "finished": finished,
        }
        self.write_json("run.json", about)

    def log(self, event: str, **values: Any) -> None:
        """Adds a line to log.jsonl."""
        line = json.dumps({"time": round(time.time(), 3), "event": event, **values}, default=str)
        if self.writes:
            with self._file("log.jsonl").open("a", encoding="utf-8") as file:
                file.write(line + "\n")

    def record_plan(self, plan: Plan) -> None:
        """Writes plan.json; phases that were planned before, when others are run, stay in it."""
        values = asdict(plan)
        now = {phase["name"] for phase in values["phases"]}
        path = self._file("plan.json")
        before = json.loads(path.read_text())["phases"] if path.is_file() else []
        values["phases"] = [*(phase for phase in before if phase["name"] not in now), *values["phases"]]
        self.write_json("plan.json", values)

    def record_splits(self, splits: Splits, unlabelled: Sequence[Image], classes: Sequence[str]) -> None:
        """Writes which image is in which split, or sees that it is still so.

        Raises:
            RunFolderError: the data is not what it was when this run began.
        """
        rows = [["split", "id", "label", "width", "height", "sha256"]]
        parts = {"train": splits.train, "val": splits.val, "test": splits.test, "unlabelled": unlabelled}
        for name, images in parts.items():
            for image in images:
                label = "" if image.sample.label is None else classes[image.sample.label]
                rows.append([name, image.sample.id, label, str(image.width), str(image.height), image.sha256])
        path = self._file("splits.csv")
        if path.is_file():
            with path.open(newline="", encoding="utf-8") as file:
                if list(csv.reader(file)) != rows:
                    raise RunFolderError(
                        f"{self.path}: the images are not those this run began with (see splits.csv): "
                        "name another --out"
                    )
        else:
            self._write_rows("splits.csv", rows)

    def results(self) -> dict[str, Any] | None:
        """results.json, as far as the run has come; None before the first phase has ended."""
        path = self._file("results.json")
        try:
            results: dict[str, Any] | None = json.loads(path.read_text()) if path.is_file() else None
        except (OSError, ValueError) as error:
            raise RunFolderError(f"{path} cannot be read: {error}") from error
        return results

    def write_history(self, phase: str, rows: Sequence[Mapping[str, float]]) -> None:
        """Writes history.csv, a row per epoch."""
        names = ["epoch", "train_loss", "val_loss", "val_accuracy", "lr", "seconds"]
        self._write_rows(
            f"phases/{phase}/history.csv", [names, *([row[name] for name in names] for row in rows)]
        )

    def write_predictions(
        self,
        phase: str,
        classes: Sequence[str],
        parts: Iterable[tuple[str, Sequence[Image], NDArray[np.float64]]],
    ) -> None:
        """Writes predictions.csv: split, id, label, predicted, one probability ``p_…`` per class."""
        rows: list[Sequence[Any]] = [
            ["split", "id", "label", "predicted", *(f"p_{name}" for name in classes)]
        ]
        for split, images, probabilities in parts:
            for image, row in zip(images, probabilities, strict=True):
                label = "" if image.sample.label is None else classes[image.sample.label]
                numbers = [f"{value:.7g}" for value in row]
                rows.append([split, image.sample.id, label, classes[int(row.argmax())], *numbers])
        self._write_rows(f"phases/{phase}/predictions.csv", rows)

    def correct(self, phase: str) -> dict[str, bool]:
        """Of a phase's test images, by id: was the prediction right?"""
        with (self.phase(phase) / "predictions.csv").open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        return {row["id"]: row["label"] == row["predicted"] for row in rows if row["split"] == "test"}

    def _file(self, name: str) -> Path:
        return self.path / name

    def _write_rows(self, name: str, rows: Iterable[Sequence[Any]]) -> None:
        if not self.writes:
            return
        path = self._file(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_name(path.name + ".unfinished")
        with unfinished.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file, lineterminator="\n").writerows(rows)
        unfinished.replace(path)

    def _write(self, name: str, text: str) -> None:
        if not self.writes:
            return
        path = self._file(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_name(path.name + ".unfinished")
        unfinished.write_text(text, encoding="utf-8")
        unfinished.replace(path)


def empty_results(recipe: Recipe, plan: Plan) -> dict[str, Any]:
    """What results.json holds before the first phase has ended."""
    data = {**plan.images, "rejected": [list(pair) for pair in plan.rejected], "about": plan.about}
    return {
        "schema": SCHEMA,
        "recipe": recipe.name,
        "classes": list(plan.classes),
        "goal": recipe.goal,
        "goal_met": None,
        "data": data,
        "phases": [],
    }


def next_folder(recipe: Recipe) -> Path:
    """``runs/<name>/<number>`` in the current folder: the last one if it is this recipe's and unfinished."""
    above = Path("runs") / recipe.name
    taken = [int(path.name) for path in above.iterdir() if path.name.isdigit()] if above.is_dir() else []
    last = above / str(max(taken, default=0))
    if (last / "recipe.toml").is_file() and (last / "recipe.toml").read_text() == recipe.to_toml():
        about = last / "run.json"
        if not (about.is_file() and json.loads(about.read_text()).get("finished")):
            return last
    return above / str(max(taken, default=0) + 1)
