"""The images that runs are compared on, and what each run predicts for them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tlkit.data.labelled import labelled_images
from tlkit.errors import DataError, RunFolderError
from tlkit.experiment.observer import Observer
from tlkit.experiment.record import PhaseRecord, RunRecord, SplitPredictions
from tlkit.inference.loading import load
from tlkit.plugins.registry import Registry
from tlkit.utils.formatting import plural
from tlkit.utils.hashing import file_sha256

#: What identifies an image across runs: the checksum of its file, and its label.
ImageKey = tuple[str, str | None]


@dataclass(frozen=True)
class ComparedImages:
    """Images that several runs are compared on.

    Attributes:
        description: how many there are and which, such as "360 test images that all 3 runs share".
        predictions: what each run predicts for them, with the images in the same order.
        seen: how many of them each run was trained or validated on.
    """

    description: str
    predictions: list[SplitPredictions]
    seen: list[int]

    @property
    def count(self) -> int:
        """The number of images."""
        return len(self.predictions[0].ids)


def shared_images(records: Sequence[RunRecord], phases: Sequence[PhaseRecord]) -> ComparedImages:
    """Returns the test images, or images out of fold, that all runs share by the content of their files.

    Args:
        records: the runs.
        phases: the phase of each run whose predictions count.

    Raises:
        RunFolderError: a run's predictions are missing, or its list of images.
    """
    measured = [_measured(record, phase) for record, phase in zip(records, phases, strict=True)]
    # of several equal files one counts
    rows = [
        dict(zip(_keys(record, predictions), range(len(predictions.ids)), strict=True))
        for record, predictions in zip(records, measured, strict=True)
    ]
    shared = sorted(set.intersection(*(set(keys) for keys in rows)), key=str)
    kinds = {phase.result.measured_on for phase in phases if phase.result}
    noun = kinds.pop() if len(kinds) == 1 else "test images or images out of fold"
    sharers = "both runs" if len(records) == 2 else f"all {len(records)} runs"
    return ComparedImages(
        description=f"{len(shared):,} {noun} that {sharers} share",
        predictions=[
            _select(predictions, np.array([keys[key] for key in shared], np.int64))
            for predictions, keys in zip(measured, rows, strict=True)
        ],
        seen=[0] * len(records),
    )


def predict_folder(
    records: Sequence[RunRecord],
    phases: Sequence[PhaseRecord],
    folder: Path,
    *,
    registry: Registry,
    device: str | None,
    observer: Observer,
) -> ComparedImages:
    """Predicts labelled images with the model of every run.

    Args:
        records: the runs.
        phases: the phase of each run whose model predicts.
        folder: a folder of class folders, or a CSV file; see `labelled_images`.
        registry: the parts to choose from.
        device: such as "cpu" or "cuda:1"; the best one unless given.
        observer: watches.

    Raises:
        DataError: there are no labelled images, some cannot be read, or a run does not know their classes.
        RunFolderError: a run's model cannot be loaded.
    """
    paths, labels = labelled_images(folder, registry)
    names = [str(path) for path in paths]
    predictions = []
    with observer.progress("predicting", len(paths) * len(records), "images") as tick:
        for record, phase in zip(records, phases, strict=True):
            predictor = load(phase.folder / "model", device=device, registry=registry)
            try:
                indices = predictor.label_indices(labels)
            except DataError as error:
                raise DataError(f"{record.folder}: {error}") from error
            rows = predictor.predict_proba(paths, tick=tick).astype(np.float32)
            predictions.append(SplitPredictions(names, indices, rows))
    contents = [file_sha256(path) for path in paths]
    return ComparedImages(
        description=f"{plural(len(paths), 'image')} of {folder}",
        predictions=predictions,
        seen=[_count_seen(record, contents) for record in records],
    )


def _measured(record: RunRecord, phase: PhaseRecord) -> SplitPredictions:
    predictions = phase.measured
    if predictions is None:
        raise RunFolderError(f"{record.folder}: the predictions of phase {phase.name} are missing")
    return predictions


def _keys(record: RunRecord, predictions: SplitPredictions) -> list[ImageKey]:
    keys = {row.id: (row.sha256, row.label) for row in record.images}
    if not keys.keys() >= set(predictions.ids):
        raise RunFolderError(f"{record.folder}: splits.csv does not list all of the images that it predicts")
    return [keys[image_id] for image_id in predictions.ids]


def _select(predictions: SplitPredictions, rows: NDArray[np.int64]) -> SplitPredictions:
    ids = [predictions.ids[row] for row in rows]
    return SplitPredictions(ids, predictions.labels[rows], predictions.probabilities[rows])


def _count_seen(record: RunRecord, contents: Sequence[str]) -> int:
    """Counts the files, by their checksums, among the images that a run was trained or validated on."""
    used = {row.sha256 for row in record.images if row.split in ("train", "val")}
    return sum(content in used for content in contents)
