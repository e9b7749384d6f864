"""Where and how precisely to compute, chosen by the hardware."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, TypeVar

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from tlkit.errors import RecipeError
from tlkit.runtime.distributed import process_state
from tlkit.runtime.processors import limit_threads, thread_limit

Precision = Literal["auto", "float32", "bfloat16"]
CPU = torch.device("cpu")
Key = TypeVar("Key")


@dataclass(frozen=True, slots=True)
class ComputeConfig:
    """Where and how precisely features are computed.

    Attributes:
        device: the device that networks run on.
        dtype: float32 or bfloat16; features are cached in it, and forward passes autocast to it.
        full_float32: whether a GPU multiplies float32 matrices in float32, where training uses TF32.
    """

    device: torch.device
    dtype: torch.dtype
    full_float32: bool = False

    @contextmanager
    def autocast(self) -> Iterator[None]:
        """Returns the context that forward passes run in."""
        low = self.dtype == torch.bfloat16
        precision = "highest" if self.full_float32 else torch.get_float32_matmul_precision()
        with (
            _matmul_precision(precision),
            torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=low),
        ):
            yield

    def for_evaluation(self) -> ComputeConfig:
        """Returns how a classifier is evaluated on the device: as `tlkit.load` predicts with it."""
        return ComputeConfig(self.device, torch.float32, full_float32=self.device.type == "cuda")


def compute_config(device: torch.device, precision: Precision) -> ComputeConfig:
    """Returns how networks compute on `device`; "auto" is bfloat16 where the hardware computes in it."""
    low = precision == "bfloat16" or (precision == "auto" and has_bfloat16(device))
    return ComputeConfig(device, torch.bfloat16 if low else torch.float32)


def choose_device(name: str | None) -> torch.device:
    """Returns the device of that name, or the one that accelerate chooses; a GPU always with its number.

    Raises:
        RecipeError: this machine has no such device.
    """
    state = process_state()
    if name is None or state.num_processes > 1:
        return torch.empty(0, device=state.device).device
    try:
        # "cuda" and "cuda:0" are not equal, and tensors are on the latter
        return torch.empty(0, device=torch.device(name)).device
    except (RuntimeError, AssertionError) as error:
        line = str(error).splitlines()[0]
        raise RecipeError([f"device {name}: not available here ({line}); try cpu"]) from error


def has_bfloat16(device: torch.device) -> bool:
    """Returns whether the hardware computes in bfloat16, so that it is faster than float32."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type == "cpu":
        capabilities = torch.cpu.get_capabilities()
        return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
    return False


def use_processors(count: int) -> None:
    """Limits this process, which shares its computer with others, to `count` threads of each kind.

    Torch computes in threads of one kind, whose number changes the last bits of features. Threads of the
    other kind read images.
    """
    limit_threads(count)
    torch.set_num_threads(count)


@contextmanager
def own_processors() -> Iterator[None]:
    """Restores the numbers of threads that `use_processors` changes."""
    threads, limit = torch.get_num_threads(), thread_limit()
    try:
        yield
    finally:
        limit_threads(limit)
        torch.set_num_threads(threads)


@contextmanager
def gpu_settings(device: torch.device) -> Iterator[None]:
    """Lets a GPU multiply float32 matrices in TF32, as its convolutions do by default, and reproducibly.

    Some of its algorithms add in an order that varies from call to call: others are chosen, so that the same
    run computes the same numbers. On other devices this changes nothing.
    """
    if device.type != "cuda":
        yield
        return
    # read by cuBLAS when it is first used
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    before = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    # the backward pass of the faster kinds of attention adds in any order
    with _matmul_precision("high"), sdpa_kernel(SDPBackend.MATH):
        torch.use_deterministic_algorithms(True, warn_only=True)
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(before, warn_only=warn_only)


@contextmanager
def _matmul_precision(precision: str) -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


@contextmanager
def one_thread(applies: bool = True) -> Iterator[None]:
    """Lets torch compute in one thread: on small matrices, several mostly wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1 if applies else threads)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Copies a tensor to `device`; a copy from main memory to a GPU is asynchronous."""
    if device.type == "cuda" and tensor.device.type == "cpu":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


def copy_to_cpu(
    batches: Iterable[tuple[Key, Mapping[str, Tensor]]],
) -> Iterator[tuple[Key, dict[str, Tensor]]]:
    """Copies batches of named tensors to the CPU without making a GPU wait.

    Each batch is yielded after the next one's kernels have been launched, so that the copy runs beside them.
    """
    pending: tuple[Key, dict[str, Tensor], torch.cuda.Event | None] | None = None

    def finish() -> tuple[Key, dict[str, Tensor]]:
        assert pending is not None
        key, tensors, copied = pending
        if copied is not None:
            copied.synchronize()
        return key, tensors

    for key, tensors in batches:
        gpu = next((tensor.device for tensor in tensors.values() if tensor.is_cuda), None)
        # an asynchronous copy goes to pinned memory, which may be read only after the event
        on_cpu = {name: tensor.to("cpu", non_blocking=gpu is not None) for name, tensor in tensors.items()}
        copied = torch.cuda.current_stream(gpu).record_event() if gpu is not None else None
        if pending is not None:
            yield finish()
        pending = key, on_cpu, copied
    if pending is not None:
        yield finish()
