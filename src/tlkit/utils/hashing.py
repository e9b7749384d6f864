"""Stable hashes and seeds."""

from __future__ import annotations

import hashlib
from pathlib import Path


def digest(*parts: object) -> str:
    """Hashes the `repr` of `parts`, which must describe their content: 40 hexadecimal digits."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:40]


def file_sha256(path: Path) -> str:
    """Returns the sha256 of a file's content, in hexadecimal.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def seed(*parts: object) -> int:
    """Derives a seed below 2**63 from `parts`, the same on every machine.

    Image order, augmentation, dropout and new weights have generators of their own, seeded from
    (seed, phase, epoch), so that drawing from one never changes another.
    """
    return int(digest(*parts)[:16], 16) >> 1
