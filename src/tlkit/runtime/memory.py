"""How much memory a process may use."""

from __future__ import annotations

from pathlib import Path

import psutil
import torch

from tlkit.runtime.distributed import process_state

#: Where Linux shows a container its limits (control groups, version 2).
CGROUP = Path("/sys/fs/cgroup")


def free_memory(device: torch.device) -> int:
    """Returns this process's share of the free memory of `device`, in bytes."""
    return _memory(device)[0]


def total_memory(device: torch.device) -> int:
    """Returns this process's share of all memory of `device`, in bytes."""
    return _memory(device)[1]


def _memory(device: torch.device) -> tuple[int, int]:
    """Returns free and total bytes; of main memory what the container has, shared by all processes."""
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        return free, total
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
    processes = process_state().num_processes
    return free // processes, total // processes
