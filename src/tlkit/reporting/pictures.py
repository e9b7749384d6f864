"""Pictures of a page: each is a file under ``pictures/``, and is embedded in the page."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PillowImage

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Whatever is drawn in this colour takes the colour of the reader's text, light or dark.
INK = "#010203"
#: Paul Tol's bright colours, which people with any colour vision can tell apart.
COLOURS = ("#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377")
GREY = "#999999"
STYLE: Any = {
    "svg.fonttype": "none",  # text stays text: small, sharp, and found by a search
    "svg.hashsalt": "tlkit",
    "font.family": "sans-serif",
    "font.size": 9,
    "text.color": INK,
    "text.parse_math": False,  # a class may be called $_$
    "axes.labelcolor": INK,
    "axes.edgecolor": GREY,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 9,
    "axes.prop_cycle": f"cycler(color={list(COLOURS)})",
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
}
#: SVG files follow the reader's colours too when they are opened by themselves.
SVG_STYLE = "<style>svg{color:#1c1c1e}@media (prefers-color-scheme:dark){svg{color:#ececf0}}</style>"
#: Width of charts, in inches: two are side by side on a wide page.
WIDTH = 5.4
#: CSS pixels per inch.
RESOLUTION = 96
#: Longest side of a photo, in pixels; a page shows no more.
LONGEST = 320
#: JPEG quality of photos.
QUALITY = 82


@dataclass(frozen=True)
class Picture:
    """A picture on a page.

    Attributes:
        alt: describes it for readers who cannot see it.
        source: its content as a data URL.
        width: in CSS pixels.
        height: in CSS pixels.
        caption: the text below it, or nothing.
    """

    alt: str
    source: str
    width: int
    height: int
    caption: str = ""


class Album:
    """Makes pictures, and writes each to a file."""

    def __init__(self, folder: Path) -> None:
        """Writes pictures to `folder`, which must exist."""
        self._folder = folder

    def chart(
        self,
        name: str,
        alt: str,
        draw: Callable[[Figure], None],
        *,
        width: float = WIDTH,
        height: float = 2.8,
        caption: str = "",
    ) -> Picture:
        """Makes a chart as SVG.

        Args:
            name: the file's name without suffix.
            alt: describes the chart.
            draw: draws into an empty figure.
            width: in inches.
            height: in inches.
            caption: the text below it.
        """
        import matplotlib
        from matplotlib.figure import Figure

        with matplotlib.rc_context(STYLE):
            figure = Figure(figsize=(width, height), layout="constrained")
            draw(figure)
            content = io.StringIO()
            figure.savefig(content, format="svg", metadata={"Date": None, "Title": alt})
        text = content.getvalue().replace(INK, "currentColor")
        text = re.sub(r"(<svg[^>]*>)", lambda match: match.group(1) + SVG_STYLE, text, count=1)
        size = (width * RESOLUTION, height * RESOLUTION)
        return self._picture(f"{name}.svg", text.encode(), alt, size, caption)

    def photo(
        self, name: str, alt: str, pixels: NDArray[np.uint8], caption: str = "", *, longest: int = LONGEST
    ) -> Picture:
        """Makes a JPEG of pixels, uint8 RGB ``(H, W, 3)``; it is reduced to `longest` pixels a side."""
        image = PillowImage.fromarray(pixels)
        image.thumbnail((longest, longest), PillowImage.Resampling.LANCZOS)
        content = io.BytesIO()
        image.save(content, "JPEG", quality=QUALITY)
        return self._picture(f"{name}.jpg", content.getvalue(), alt, image.size, caption)

    def _picture(
        self, file: str, content: bytes, alt: str, size: tuple[float, float], caption: str
    ) -> Picture:
        (self._folder / file).write_bytes(content)
        media_type = "image/svg+xml" if file.endswith(".svg") else "image/jpeg"
        source = f"data:{media_type};base64,{base64.b64encode(content).decode()}"
        return Picture(alt, source, round(size[0]), round(size[1]), caption)
