"""What a phase needs to go on after it was cut short: safetensors and JSON, nothing that runs code.

Order, augmentation and dropout are drawn from (seed, phase, epoch), so weights, the optimiser's state and
the history are all there is to keep.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn


@dataclass
class Progress:
    """A phase between two epochs.

    Attributes:
        best: what training changes, as it was after the best epoch.
        rows: the history so far.
        best_epoch: counted from 1; 0 before the first.
        start: validation scores of the weights it started from, where they count.
    """

    best: dict[str, Tensor]
    rows: list[dict[str, float]] = field(default_factory=list)
    best_epoch: int = 0
    start: dict[str, float] | None = None


def save_progress(
    folder: Path, progress: Progress, network: nn.Module, optimizer: torch.optim.Optimizer
) -> None:
    """Writes a phase's progress; a process that is killed meanwhile leaves the one before."""
    unfinished, before = folder.with_suffix(".unfinished"), folder.with_suffix(".before")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    state = optimizer.state_dict()
    tensors, plain = _divide(state["state"])
    now = {name: value for name, value in network.state_dict().items() if name in progress.best}
    save_file(_own(progress.best), unfinished / "best.safetensors")
    save_file(_own(now), unfinished / "now.safetensors")
    save_file(_own(tensors), unfinished / "optimizer.safetensors")
    about = {
        "rows": progress.rows,
        "best_epoch": progress.best_epoch,
        "start": progress.start,
        "optimizer": plain,
    }
    (unfinished / "progress.json").write_text(json.dumps(about))
    shutil.rmtree(before, ignore_errors=True)
    if folder.exists():
        folder.rename(before)
    unfinished.rename(folder)
    shutil.rmtree(before, ignore_errors=True)


def load_progress(folder: Path, network: nn.Module, optimizer: torch.optim.Optimizer) -> Progress | None:
    """Puts network and optimiser where they were; None if there is nothing to go on from."""
    folder = folder if folder.exists() else folder.with_suffix(".before")
    if not (folder / "progress.json").is_file():
        return None
    about = json.loads((folder / "progress.json").read_text())
    network.load_state_dict(load_file(folder / "now.safetensors"), strict=False)
    state: dict[int, dict[str, Any]] = {
        int(number): dict(values) for number, values in about["optimizer"].items()
    }
    for name, value in load_file(folder / "optimizer.safetensors").items():
        number, _, key = name.partition(".")
        state.setdefault(int(number), {})[key] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    _lay_out(optimizer)
    return Progress(
        load_file(folder / "best.safetensors"), about["rows"], about["best_epoch"], about["start"]
    )


def clear_progress(folder: Path) -> None:
    """Removes what a finished phase does not need any more."""
    for path in (folder, folder.with_suffix(".before"), folder.with_suffix(".unfinished")):
        shutil.rmtree(path, ignore_errors=True)


def _lay_out(optimizer: torch.optim.Optimizer) -> None:
    """Lays the optimiser's tensors out as their parameters are: a fused step goes through memory in order."""
    for parameter, values in optimizer.state.items():
        for key, value in values.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape:
                values[key] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)


def _divide(state: dict[int, dict[str, Any]]) -> tuple[dict[str, Tensor], dict[str, dict[str, Any]]]:
    """An optimiser's state as named tensors, and as plain values per parameter."""
    tensors: dict[str, Tensor] = {}
    plain: dict[str, dict[str, Any]] = {}
    for number, values in state.items():
        for key, value in values.items():
            if isinstance(value, Tensor):
                tensors[f"{number}.{key}"] = value
            elif value is not None:
                plain.setdefault(str(number), {})[key] = value
    return tensors, plain


def _own(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Copies in memory of their own, as safetensors wants them."""
    return {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
