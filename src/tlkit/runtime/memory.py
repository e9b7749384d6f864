"""How much memory a process may use."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import psutil

from tlkit.runtime.distributed import process_state

if TYPE_CHECKING:
    import torch

#: Where Linux shows a container its limits (control groups, version 2).
CGROUP = Path("/sys/fs/cgroup")


class Memory(NamedTuple):
    """Bytes of memory: those that are free, and all."""

    free: int
    total: int


def free_memory(device: torch.device) -> int:
    """Returns this process's share of the free memory of `device`, in bytes."""
    return _memory(device).free


def total_memory(device: torch.device) -> int:
    """Returns this process's share of all memory of `device`, in bytes."""
    return _memory(device).total


def _memory(device: torch.device) -> Memory:
    if device.type == "cuda":
        import torch

        return Memory(*torch.cuda.mem_get_info(device))
    memory, processes = main_memory(), process_state().num_processes
    return Memory(memory.free // processes, memory.total // processes)


def main_memory() -> Memory:
    """Returns the main memory of the container or machine, which all processes share."""
    machine = psutil.virtual_memory()
    free, total = machine.available, machine.total
    try:
        limit = int((CGROUP / "memory.max").read_text(encoding="utf-8"))
        used = int((CGROUP / "memory.current").read_text(encoding="utf-8"))
        lines = (CGROUP / "memory.stat").read_text(encoding="utf-8").splitlines()
        statistics = dict(line.split() for line in lines)
    except (OSError, ValueError):
        pass  # no container, or one whose limit is "max"
    else:
        # cached files are dropped when memory is needed
        free = min(free, max(0, limit - used + int(statistics["inactive_file"])))
        total = min(total, limit)
    return Memory(free, total)
