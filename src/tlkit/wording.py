"""Numbers as people read them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def p_value(p: float) -> str:
    """A p-value for a person: two digits, or its power of ten, or that it is too small for a float."""
    if p < 1e-300:
        return "p < 1e-300"
    return f"p = {p:.2g}" if p >= 0.001 else f"p = {p:.0e}"


def size(count: int) -> str:
    """Bytes for a person."""
    value = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"


def gain(versus: Mapping[str, Any], images: int) -> str:
    """What a phase gained over another one on the same test images, and how sure that is."""
    points = 100 * (versus["gained"] - versus["lost"]) / images
    return f"{points:+.1f} points over {versus['phase']} ({p_value(versus['p'])})"


def duration(seconds: float) -> str:
    """Seconds for a person."""
    if seconds < 90:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"
