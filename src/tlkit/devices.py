"""Where and how precisely to compute, chosen by the hardware."""

from __future__ import annotations

import ctypes
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, TypeVar

import psutil
import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from torch import Tensor

from tlkit.errors import RecipeError

Precision = Literal["auto", "float32", "bfloat16"]
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
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high")  # TF32, as cuDNN's convolutions have it anyway
    low = precision == "bfloat16" or (precision == "auto" and has_bfloat16(device))
    dtype = torch.bfloat16 if low else torch.float32
    return Setting(device, dtype)


def free_memory(device: torch.device) -> int:
    """Bytes that are free where `device` keeps its tensors."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return int(psutil.virtual_memory().available)


def total_memory(device: torch.device) -> int:
    """Bytes that there are where `device` keeps its tensors."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[1])
    return int(psutil.virtual_memory().total)


def one_behind(made: Iterable[tuple[Key, Mapping[str, Tensor]]]) -> Iterator[tuple[Key, dict[str, Tensor]]]:
    """Tensors brought to the CPU, those of a batch while a graphics card computes the next batch's."""
    waiting: tuple[Key, dict[str, Tensor], torch.cuda.Event | None] | None = None

    def arrived() -> tuple[Key, dict[str, Tensor]]:
        assert waiting is not None
        key, tensors, copied = waiting
        if copied is not None:
            copied.synchronize()
        return key, tensors

    for key, tensors in made:
        cuda = any(tensor.is_cuda for tensor in tensors.values())
        # without waiting torch copies to pinned memory, which may only be read after the event
        coming = {name: tensor.to("cpu", non_blocking=cuda) for name, tensor in tensors.items()}
        copied = torch.cuda.Event() if cuda else None  # type: ignore[no-untyped-call]
        if copied is not None:
            copied.record()
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
