"""Saves a phase between two epochs and resumes it: safetensors and JSON, nothing that can run code.

Order, augmentation and dropout are drawn from (seed, phase, epoch), so weights, the optimiser's state and
the history are all that is needed.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from tlkit.errors import RunFolderError
from tlkit.training.averaging import WeightAverage
from tlkit.training.history import History
from tlkit.training.packing import State, pack, unpack
from tlkit.utils.atomic_write import atomic_write, is_there, remove, replaced_path
from tlkit.utils.hashing import file_sha256
from tlkit.utils.json_files import JsonModel, content_sha256, parse_json, read_text, write_json
from tlkit.utils.regular_files import check_regular

#: The file of the average of the weights, where there is one.
AVERAGE = "average.safetensors"


@dataclass
class Checkpoint:
    """A phase between two epochs.

    Attributes:
        best: what training updates, as it was after the best epoch.
        history: the epochs so far.
    """

    best: State
    history: History = field(default_factory=History)


class _Progress(JsonModel):
    """The content of progress.json.

    Attributes:
        history: the epochs so far.
        optimizer: the optimiser's state, packed; its tensors are in optimizer.safetensors.
        files: checksums of the files of tensors.
        sha256: checksum of what progress.json has besides this key.
    """

    history: History
    optimizer: Any
    files: dict[str, str]
    sha256: str = ""


def save_checkpoint(
    folder: Path,
    checkpoint: Checkpoint,
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    average: WeightAverage | None = None,
) -> None:
    """Writes a checkpoint; a process that is killed meanwhile leaves the one before.

    Raises:
        OSError: it cannot be written.
        TypeError: the optimiser's state holds what cannot be saved.
    """
    tensors: State = {}
    packed = pack(optimizer.state_dict(), tensors)
    current = {name: value for name, value in network.state_dict().items() if name in checkpoint.best}
    files = {
        "best.safetensors": checkpoint.best,
        "now.safetensors": current,
        "optimizer.safetensors": tensors,
        **({} if average is None else {AVERAGE: average.state()}),
    }
    with atomic_write(folder) as temporary:
        temporary.mkdir()
        for name, content in files.items():
            save_file(_copies(content), temporary / name)
        checksums = {name: file_sha256(temporary / name) for name in files}
        progress = _Progress(history=checkpoint.history, optimizer=packed, files=checksums)
        sha256 = content_sha256(progress.model_dump_json(), "sha256")
        write_json(temporary / "progress.json", progress.model_copy(update={"sha256": sha256}))


def load_checkpoint(
    folder: Path,
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    expected: Mapping[str, Tensor],
    average: WeightAverage | None = None,
) -> Checkpoint | None:
    """Restores network, optimiser and average from a checkpoint; returns None if there is none.

    Args:
        folder: the checkpoint's folder.
        network: the network as the phase begins.
        optimizer: its optimiser, before the first step.
        expected: what training updates; the checkpoint must have tensors of the same names and forms.
        average: the average of the weights, before the first step; None: there is none.

    Raises:
        RunFolderError: it is damaged, or of another network or optimiser; nothing is changed then.
    """
    folder = folder if is_there(folder) else replaced_path(folder)
    if not is_there(folder):
        return None
    progress = _read_progress(folder / "progress.json")
    best, now, tensors = (
        _read_tensors(folder / name, progress.files.get(name))
        for name in ("best.safetensors", "now.safetensors", "optimizer.safetensors")
    )
    averaged = {} if average is None else _read_tensors(folder / AVERAGE, progress.files.get(AVERAGE))
    same = _forms(best) == _forms(now) == _forms(expected)
    if not same or (average is not None and _forms(averaged) != _forms(average.state())):
        raise RunFolderError(f"{folder} is a checkpoint of another network")
    _load_optimizer(optimizer, progress.optimizer, tensors, folder)
    if average is not None:
        average.load(averaged)
    network.load_state_dict(now, strict=False)
    return Checkpoint(best, progress.history)


def resumed_epochs(folder: Path) -> int:
    """Returns how many epochs a checkpoint holds; 0 if there is none.

    Raises:
        RunFolderError: it is damaged.
    """
    folder = folder if is_there(folder) else replaced_path(folder)
    return len(_read_progress(folder / "progress.json").history.epochs) if is_there(folder) else 0


def remove_checkpoint(folder: Path) -> None:
    """Removes what a finished phase does not need any more."""
    for path in (folder, replaced_path(folder), *folder.parent.glob(f"{folder.name}.*.unfinished")):
        remove(path)


def _read_progress(path: Path) -> _Progress:
    text = read_text(path, RunFolderError)
    progress = parse_json(text, _Progress, RunFolderError, str(path))
    if content_sha256(text, "sha256") != progress.sha256:
        raise RunFolderError(f"{path} is not as tlkit wrote it: sha256 differs")
    return progress


def _read_tensors(path: Path, sha256: str | None) -> State:
    try:
        check_regular(path)
        if file_sha256(path) != sha256:
            raise RunFolderError(f"{path} is not as tlkit wrote it: its checksum differs")
        tensors: State = load_file(path)
    except (OSError, SafetensorError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise RunFolderError(f"{path} cannot be read: {reason}") from error
    return tensors


def _load_optimizer(optimizer: torch.optim.Optimizer, packed: Any, tensors: State, folder: Path) -> None:
    """Loads an optimiser's state, or leaves it as it was."""
    before = copy.deepcopy(optimizer.state_dict())
    try:
        state = unpack(packed, tensors)
        # torch compares the number of groups and parameters, but not what the groups have
        for saved, own in zip(state["param_groups"], before["param_groups"], strict=True):
            if saved["params"] != own["params"] or not own.keys() <= saved.keys():
                raise ValueError("its parameter groups differ")
        optimizer.load_state_dict(state)
        _match_layouts(optimizer)
    except (LookupError, TypeError, ValueError, RuntimeError, AttributeError) as error:
        optimizer.load_state_dict(before)
        raise RunFolderError(f"{folder} is a checkpoint of another optimiser: {error}") from error


def _match_layouts(optimizer: torch.optim.Optimizer) -> None:
    """Gives the optimiser's tensors their parameters' memory layout, which fused steps are fastest with."""
    for parameter, values in optimizer.state.items():
        for key, value in values.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape:
                values[key] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)


def _forms(tensors: Mapping[str, Tensor]) -> dict[str, tuple[torch.Size, torch.dtype]]:
    """Returns shape and dtype of each tensor."""
    return {name: (value.shape, value.dtype) for name, value in tensors.items()}


def _copies(tensors: State) -> State:
    """Copies tensors to memory of their own, as safetensors requires."""
    return {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
