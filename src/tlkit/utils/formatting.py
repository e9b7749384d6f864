"""Numbers and lists as people read them."""

from __future__ import annotations

import re
from collections.abc import Sequence

#: Control characters, line and paragraph separators, and bytes of a file's name that are not UTF-8.
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def format_p_value(p: float) -> str:
    """Formats a p-value with two digits, or as a power of ten when it is small."""
    if p < 1e-300:
        return "p < 1e-300"
    return f"p = {p:.2g}" if p >= 0.001 else f"p = {p:.0e}"


def format_bytes(count: int) -> str:
    """Formats a number of bytes with a decimal unit, such as ``1.5 MB``."""
    value = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"


def format_duration(seconds: float) -> str:
    """Formats a duration, such as ``8.2 s``, ``45 s``, ``3 min 5 s`` or ``2 h 10 min``."""
    if seconds < 90:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, seconds_left = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {seconds_left} s"


def plural(count: int, noun: str) -> str:
    """Formats a count with its noun: ``1 image``, ``1,200 images``."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def shortlist(items: Sequence[str], limit: int = 5, separator: str = ", ") -> str:
    """Joins the first `limit` items, and says how many more there are."""
    more = f" and {len(items) - limit} more" if len(items) > limit else ""
    return separator.join(items[:limit]) + more


def first_line(error: Exception) -> str:
    """Returns the first line of an error's message, or its type where it has none."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def bulleted(head: str, items: Sequence[str], limit: int = 20) -> str:
    """Lists the first `limit` items below `head`, one a line, and says how many more there are."""
    lines = [head, *(f"  - {item}" for item in items[:limit])]
    if len(items) > limit:
        lines.append(f"  - and {len(items) - limit} more")
    return "\n".join(lines)


def printable(text: str) -> str:
    """Replaces control characters, and bytes of names that are not UTF-8, by escapes such as ``\\r``."""
    return _UNPRINTABLE.sub(lambda match: match[0].encode("unicode_escape").decode(), text)
