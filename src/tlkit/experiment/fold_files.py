"""The files of a cross-validation: what each fold of a phase ended with, while the run lasts."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from tlkit.data.folds import Folds
from tlkit.errors import RunFolderError
from tlkit.experiment.log import FoldEnded
from tlkit.experiment.phase_context import PhaseContext
from tlkit.runtime.distributed import broadcast_from_main, process_state
from tlkit.utils.atomic_write import atomic_write
from tlkit.utils.regular_files import check_regular

State = dict[str, Tensor]
#: In a fold's file, in front of the names of weights.
STATE = "state."


@dataclass(frozen=True)
class FoldOutcome:
    """What comes of one fold.

    Attributes:
        logits: of the images that it did not see, ``(m, classes)``.
        epochs: the number of epochs after which its weights were kept.
        state: all weights that this phase, and those it starts from, have changed.
    """

    logits: NDArray[np.float64]
    epochs: int
    state: State


def fold_file(context: PhaseContext, phase: str, fold: int) -> Path:
    """Returns the file of what a fold of a phase ended with."""
    return context.folder.folds(phase) / f"{fold}.safetensors"


def write_fold(context: PhaseContext, phase: str, fold: int, outcome: FoldOutcome) -> None:
    """Writes a fold's outcome; other processes wait for the main one."""
    if context.folder.writes:
        file = fold_file(context, phase, fold)
        tensors = {f"{STATE}{name}": value.contiguous() for name, value in outcome.state.items()}
        tensors["logits"] = torch.from_numpy(outcome.logits)
        tensors["epochs"] = torch.tensor(outcome.epochs)
        try:
            with atomic_write(file) as temporary:
                save_file(tensors, temporary)
        except (OSError, SafetensorError) as error:
            raise RunFolderError(f"{file} cannot be written: {error}") from error
    context.folder.log(FoldEnded(phase=phase))
    process_state().wait_for_everyone()


def read_fold_state(context: PhaseContext, phase: str, fold: int) -> State:
    """Reads all weights that a phase, and those it starts from, have changed in a fold.

    Raises:
        RunFolderError: the file is missing or damaged.
    """
    tensors = _read_tensors(fold_file(context, phase, fold))
    return {name.removeprefix(STATE): value for name, value in tensors.items() if name.startswith(STATE)}


def read_fold(context: PhaseContext, phase: str, fold: int, images: int, classes: int) -> FoldOutcome:
    """Reads a fold's outcome.

    Raises:
        RunFolderError: it is missing or damaged.
    """
    file = fold_file(context, phase, fold)
    tensors = _read_tensors(file)
    logits, epochs = tensors.get("logits"), tensors.get("epochs")
    if logits is None or epochs is None or tuple(logits.shape) != (images, classes) or epochs.ndim:
        raise RunFolderError(f"{file} is not of this run")
    if not all(value.isfinite().all() for value in tensors.values()):
        raise RunFolderError(f"{file} has numbers that are not finite")
    state = {name.removeprefix(STATE): value for name, value in tensors.items() if name.startswith(STATE)}
    return FoldOutcome(logits.double().numpy(), int(epochs), state)


def _read_tensors(file: Path) -> State:
    try:
        check_regular(file)
        return load_file(file)
    except (OSError, SafetensorError, ValueError) as error:
        raise RunFolderError(f"{file} cannot be read: {error}") from error


def read_finished_folds(context: PhaseContext, phase: str, folds: Folds, classes: int) -> list[FoldOutcome]:
    """Reads the folds that an interrupted run has finished."""
    outcomes: list[FoldOutcome] = []
    for fold in range(folds.count):
        file = fold_file(context, phase, fold)
        if not broadcast_from_main(file.is_file()):
            break
        try:
            outcomes.append(read_fold(context, phase, fold, len(folds.held_out(0, fold)), classes))
        except RunFolderError as error:
            context.observer.note(f"fold {fold + 1} of phase {phase!r} is trained again: {error}")
            break
    return outcomes


def copy_folds(context: PhaseContext, source: str, phase: str) -> None:
    """Gives a phase that keeps the weights it starts from what that one's folds ended with."""
    if context.folder.writes:
        for fold in range(context.dataset.folds.count if context.dataset.folds else 0):
            with atomic_write(fold_file(context, phase, fold)) as temporary:
                shutil.copyfile(fold_file(context, source, fold), temporary)
    process_state().wait_for_everyone()


def remove_folds(folder: Path) -> None:
    """Removes the folder of what a phase's folds ended with: nothing starts from it any more."""
    shutil.rmtree(folder, ignore_errors=True)
