"""Saves a phase between two epochs and resumes it: safetensors and JSON, nothing that can run code.

Order, augmentation and dropout are drawn from (seed, phase, epoch), so weights, the optimiser's state and
the history are all that is needed.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from tlkit.errors import RunFolderError
from tlkit.training.history import History
from tlkit.utils.atomic_write import atomic_write, replaced_path
from tlkit.utils.json_files import JsonModel, read_json, write_json

State = dict[str, Tensor]


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
    """The content of progress.json; `optimizer` has plain values by parameter."""

    history: History
    optimizer: dict[str, dict[str, Any]]


def save_checkpoint(
    folder: Path, checkpoint: Checkpoint, network: nn.Module, optimizer: torch.optim.Optimizer
) -> None:
    """Writes a checkpoint; a process that is killed meanwhile leaves the one before.

    Raises:
        OSError: it cannot be written.
    """
    tensors, plain = _divide(optimizer.state_dict()["state"])
    current = {name: value for name, value in network.state_dict().items() if name in checkpoint.best}
    with atomic_write(folder) as temporary:
        temporary.mkdir()
        save_file(_copies(checkpoint.best), temporary / "best.safetensors")
        save_file(_copies(current), temporary / "now.safetensors")
        save_file(_copies(tensors), temporary / "optimizer.safetensors")
        write_json(temporary / "progress.json", _Progress(history=checkpoint.history, optimizer=plain))


def load_checkpoint(folder: Path, network: nn.Module, optimizer: torch.optim.Optimizer) -> Checkpoint | None:
    """Restores network and optimiser from a checkpoint; returns None if there is none.

    Raises:
        RunFolderError: its progress.json cannot be read.
    """
    folder = folder if folder.exists() else replaced_path(folder)
    if not (folder / "progress.json").is_file():
        return None
    progress = read_json(folder / "progress.json", _Progress, RunFolderError)
    network.load_state_dict(load_file(folder / "now.safetensors"), strict=False)
    state: dict[int, dict[str, Any]] = {
        int(number): dict(values) for number, values in progress.optimizer.items()
    }
    for name, value in load_file(folder / "optimizer.safetensors").items():
        number, _, key = name.partition(".")
        state.setdefault(int(number), {})[key] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    _match_layouts(optimizer)
    return Checkpoint(load_file(folder / "best.safetensors"), progress.history)


def remove_checkpoint(folder: Path) -> None:
    """Removes what a finished phase does not need any more."""
    unfinished = folder.parent.glob(f"{folder.name}.*.unfinished")
    for path in (folder, replaced_path(folder), *unfinished):
        shutil.rmtree(path, ignore_errors=True)


def _match_layouts(optimizer: torch.optim.Optimizer) -> None:
    """Gives the optimiser's tensors their parameters' memory layout, which fused steps are fastest with."""
    for parameter, values in optimizer.state.items():
        for key, value in values.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape:
                values[key] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)


def _divide(state: dict[int, dict[str, Any]]) -> tuple[State, dict[str, dict[str, Any]]]:
    """Divides an optimiser's state into named tensors, and plain values by parameter."""
    tensors: State = {}
    plain: dict[str, dict[str, Any]] = {}
    for number, values in state.items():
        for key, value in values.items():
            if isinstance(value, Tensor):
                tensors[f"{number}.{key}"] = value
            elif value is not None:
                plain.setdefault(str(number), {})[key] = value
    return tensors, plain


def _copies(tensors: State) -> State:
    """Copies tensors to memory of their own, as safetensors requires."""
    return {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
