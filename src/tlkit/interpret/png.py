"""Encodes pictures, and writes them to files."""

from __future__ import annotations

import io
import math
import textwrap
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from tlkit.data.views import Pixels
from tlkit.errors import ReportError

#: The height of a caption's letters in pixels, and the least width of a picture with a caption.
FONT_SIZE, CAPTIONED_WIDTH = 12, 160
MARGIN = 4


def with_caption(pixels: Pixels, caption: str) -> Pixels:
    """Returns a picture, uint8 RGB ``(H, W, 3)``, with a text below it, in as many lines as that takes."""
    import matplotlib

    # its letters are equally wide, and it has more alphabets than Pillow's own
    file = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSansMono.ttf"
    font = ImageFont.truetype(file, FONT_SIZE)
    width = max(pixels.shape[1], CAPTIONED_WIDTH)
    columns = int((width - 2 * MARGIN) / font.getlength("m"))
    lines = "\n".join(part for line in caption.splitlines() for part in textwrap.wrap(line, columns))
    bottom = ImageDraw.Draw(Image.new("RGB", (1, 1))).multiline_textbbox((MARGIN, MARGIN), lines, font=font)[
        3
    ]
    strip = Image.new("RGB", (width, math.ceil(bottom) + MARGIN), "white")
    ImageDraw.Draw(strip).multiline_text((MARGIN, MARGIN), lines, "black", font)
    padding = ((0, 0), (0, width - pixels.shape[1]), (0, 0))
    return np.concatenate([np.pad(pixels, padding, constant_values=255), np.asarray(strip)])


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
