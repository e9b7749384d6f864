"""Encodes pictures, and writes them to files."""

from __future__ import annotations

import io
from pathlib import Path

from PIL import Image

from tlkit.data.views import Pixels
from tlkit.errors import ReportError


def png_bytes(pixels: Pixels) -> bytes:
    """Encodes uint8 RGB ``(H, W, 3)`` as PNG."""
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "PNG")
    return content.getvalue()


def write_png(path: Path, pixels: Pixels) -> Path:
    """Writes uint8 RGB ``(H, W, 3)`` to a PNG file, and returns its path.

    Raises:
        ReportError: the file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    except OSError as error:
        raise ReportError(f"{path} cannot be written: {error.strerror or error}") from error
    return path
