"""Shards: the files of a column, written whole, and verified when they are opened.

A shard has `images`, uint8 ``(n, 32)``, the sha256 of each image's bytes, and `features`, ``(n, k, …)``, k
rows per image. Its metadata names the column, and has a checksum of everything else.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xxhash
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from tlkit.errors import StoreError
from tlkit.utils.atomic_write import atomic_write
from tlkit.utils.regular_files import check_regular

if TYPE_CHECKING:
    from torch import Tensor

FORMAT = "2"
#: The folder in a column's that has the shards which a shared store does not have yet.
UNSENT = "unsent"


@dataclass(frozen=True, slots=True)
class Shard:
    """A shard that has been verified.

    Attributes:
        images: sha256 of each image's bytes, uint8 ``(n, 32)``.
        features: ``(n, k, …)``, memory-mapped.
    """

    images: NDArray[np.uint8]
    features: Tensor

    def fits(self, features: Tensor) -> bool:
        """Returns whether its features have the type of another shard's, and their shape per image."""
        return (self.features.dtype, self.features.shape[1:]) == (features.dtype, features.shape[1:])


def write_shard(folder: Path, column: str, images: NDArray[np.uint8], features: Tensor) -> Path:
    """Writes a shard of a column under a name of its own; returns its path.

    Raises:
        StoreError: the disk is full, or the folder cannot be written.
    """
    import torch
    from safetensors.torch import save_file

    tensors = {"images": torch.from_numpy(images), "features": features}
    metadata = {"format": FORMAT, "column": column, "checksum": _checksum(column, tensors)}
    path = folder / f"{uuid.uuid4().hex}.safetensors"
    try:
        # a checksum protects it from a power failure, so it need not wait for the disk
        with atomic_write(path, durable=False) as temporary:
            save_file(tensors, temporary, metadata=metadata)
    except (OSError, SafetensorError) as error:
        raise StoreError(
            f"features cannot be written to {folder}: {error}. Free some space there "
            "(tlkit cache clear), name another folder in TLKIT_CACHE, or train without cached features "
            "(--set features.cache=false)"
        ) from error
    return path


def open_shard(path: Path, column: str) -> Shard | None:
    """Opens and verifies a shard; None if it is not a shard of the column, exactly as it was written.

    Raises:
        StoreError: it is another user's, who does not let this one read it.
    """
    import torch

    try:
        check_regular(path)
        with path.open("rb"):  # of a file that must not be read, safetensors says that there is none
            pass
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in ("images", "features")}
    except PermissionError as error:
        raise StoreError(
            f"{path} must not be read by this user: its owner is to permit that (chmod -R g+rX), or name "
            "another folder in TLKIT_CACHE"
        ) from error
    except (OSError, SafetensorError):
        return None
    if metadata.get("format") != FORMAT or metadata.get("checksum") != _checksum(column, tensors):
        return None
    images, features = tensors["images"], tensors["features"]
    if images.dtype != torch.uint8 or images.shape[1:] != (32,) or features.shape[:1] != images.shape[:1]:
        return None
    return Shard(images.numpy(), features)


def unsent(column: Path) -> list[Path]:
    """Returns the shards in a column's folder that a shared store does not have yet."""
    return sorted((column / UNSENT).glob("*.safetensors"))


def _checksum(column: str, tensors: dict[str, Tensor]) -> str:
    """Returns a checksum of the column's key, and of each tensor with its type and shape.

    XXH3 finds damage at the rate of memory; it does not protect from somebody who may write to the store.
    """
    import torch

    state = xxhash.xxh3_128(column.encode())
    for name, tensor in tensors.items():
        state.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        content: Any = tensor.contiguous().reshape(-1).view(torch.uint8).numpy()
        state.update(memoryview(content))
    return state.hexdigest()
