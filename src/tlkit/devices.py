"""Where and how precisely to compute, chosen by the hardware."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Literal, TypeVar

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list

from tlkit.errors import RecipeError

Precision = Literal["auto", "float32", "bfloat16"]
T = TypeVar("T")


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
