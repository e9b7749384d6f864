"""Names and seeds made from what they stand for."""

from __future__ import annotations

import hashlib


def digest(*parts: object) -> str:
    """A hash of `parts`, which must say by their repr what they are: 40 hexadecimal digits."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:40]


def seed(*parts: object) -> int:
    """A seed below 2**63 that differs for differing `parts`, the same on every machine.

    Image order, augmentation, dropout and new weights each have a generator of their own, seeded
    from (seed, phase, epoch), so that what one of them draws never moves another.
    """
    return int(digest(*parts)[:16], 16) >> 1
