"""Where and how precisely to compute, chosen by the hardware."""

from __future__ import annotations

import ctypes
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

import psutil
import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from torch import Tensor

from tlkit.errors import RecipeError

Precision = Literal["auto", "float32", "bfloat16"]
#: Where Linux tells a container its limits (version 2 of control groups).
CGROUP = Path("/sys/fs/cgroup")
T = TypeVar("T")
Key = TypeVar("Key")


@dataclass(frozen=True, slots=True)
class Setting:
    """How features are computed, as far as it changes them.

    Attributes:
        device: where.
        dtype: what they are kept in.
    """

    device: torch.device
    dtype: torch.dtype

    def autocast(self) -> torch.autocast:
        """The context that forward passes run in."""
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.dtype == torch.bfloat16)


def processes() -> PartialState:
    """The processes that `accelerate launch` started to work together; one, unless it did.

    Each makes its part of the features and trains on its part of every batch; the first alone writes
    the run folder and shows progress.
    """
    return PartialState()


def from_first(value: T) -> T:
    """What the first of the processes has, in all of them."""
    shared = [value]
    broadcast_object_list(shared)
    return shared[0]


def choose_device(name: str | None) -> torch.device:
    """The device of that name, or the one that accelerate chooses.

    Raises:
        RecipeError: there is no such device here.
    """
    together = processes()
    if name is None or together.num_processes > 1:
        chosen: torch.device = together.device
        return chosen
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        line = str(error).splitlines()[0]
        raise RecipeError([f"--device {name}: not to be had here ({line}); try cpu"]) from error
    return device


def has_bfloat16(device: torch.device) -> bool:
    """Whether the hardware itself computes in bfloat16, so that it is faster than float32."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type == "cpu":
        abilities = torch.cpu.get_capabilities()
        return bool(abilities.get("avx512_bf16") or abilities.get("amx_bf16"))
    return False


def setting(device: torch.device, precision: Precision) -> Setting:
    """How networks compute on `device` in that precision."""
    low = precision == "bfloat16" or (precision == "auto" and has_bfloat16(device))
    dtype = torch.bfloat16 if low else torch.float32
    return Setting(device, dtype)


@contextmanager
def tensor_float32(device: torch.device) -> Iterator[None]:
    """Lets a graphics card multiply matrices of float32 in TF32, as its convolutions do anyway."""
    before = torch.get_float32_matmul_precision()
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def free_memory(device: torch.device) -> int:
    """Bytes that are free where `device` keeps its tensors: this process' share of them."""
    return _memory(device)[0]


def total_memory(device: torch.device) -> int:
    """Bytes that there are where `device` keeps its tensors: this process' share of them."""
    return _memory(device)[1]


def _memory(device: torch.device) -> tuple[int, int]:
    """Free and in all; of main memory no more than the container has, divided among the processes."""
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        return free, total
    found = psutil.virtual_memory()
    free, total = found.available, found.total
    try:
        limit = int((CGROUP / "memory.max").read_text())
        used = int((CGROUP / "memory.current").read_text())
        about = dict(line.split() for line in (CGROUP / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):
        pass  # no container, or one whose limit is "max"
    else:
        # what it holds of files is given back when memory is needed
        free, total = min(free, max(0, limit - used + int(about["inactive_file"]))), min(total, limit)
    share = processes().num_processes
    return free // share, total // share


def moved(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor on `device`; a copy from main memory to a graphics card is not waited for."""
    if device.type == "cuda" and tensor.device.type == "cpu":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


def one_behind(made: Iterable[tuple[Key, Mapping[str, Tensor]]]) -> Iterator[tuple[Key, dict[str, Tensor]]]:
    """Tensors brought to the CPU, each batch once the next one's work has been given to the graphics card."""
    waiting: tuple[Key, dict[str, Tensor], torch.cuda.Event | None] | None = None

    def arrived() -> tuple[Key, dict[str, Tensor]]:
        assert waiting is not None
        key, tensors, copied = waiting
        if copied is not None:
            copied.synchronize()
        return key, tensors

    for key, tensors in made:
        card = next((tensor.device for tensor in tensors.values() if tensor.is_cuda), None)
        # without waiting torch copies to pinned memory, which may only be read after the event
        coming = {name: tensor.to("cpu", non_blocking=card is not None) for name, tensor in tensors.items()}
        copied = torch.cuda.current_stream(card).record_event() if card is not None else None
        if waiting is not None:
            yield arrived()
        waiting = key, coming, copied
    if waiting is not None:
        yield arrived()


def keep_freed_memory() -> None:
    """Lets glibc keep large blocks that are freed, for the command line's own process.

    It would give them back to the system after every step and fetch them anew, page by page: training
    the benchmark's network on 2 cores is 1.9 times as fast without that. Elsewhere this does nothing.
    """
    trim_threshold, mmap_threshold = -1, -3  # as in malloc.h
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        return
    mallopt(mmap_threshold, 2**30)
    mallopt(trim_threshold, 2**31 - 1)
