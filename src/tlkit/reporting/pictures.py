"""Pictures of a page: each is a file under ``pictures/`` and goes into the page as it is."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from cycler import cycler
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image as PillowImage

#: What is drawn in this colour takes the colour of the reader's text, light or dark.
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
    "axes.prop_cycle": cycler(color=COLOURS),
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
#: Of photos, in pixels: more is not seen on a page.
LONGEST = 320
QUALITY = 82


@dataclass(frozen=True)
class Picture:
    """A picture on a page.

    Attributes:
        file: its place under the page's folder.
        alt: what it shows, for who cannot see it.
        source: its content as a data address.
        width: in CSS pixels.
        height: in CSS pixels.
        caption: what stands below it.
    """

    file: str
    alt: str
    source: str
    width: int
    height: int
    caption: str = ""


class Album:
    """Makes pictures and writes them under a folder."""

    def __init__(self, folder: Path) -> None:
        """`folder` is where the page is; pictures go to ``pictures/`` in it."""
        self._folder = folder

    def chart(
        self,
        name: str,
        alt: str,
        draw: Callable[[Figure], None],
        *,
        width: float = 4.4,
        height: float = 2.8,
        caption: str = "",
    ) -> Picture:
        """A chart of that many inches, as SVG; `draw` is given an empty figure."""
        with matplotlib.rc_context(STYLE):
            figure = Figure(figsize=(width, height), layout="constrained")
            draw(figure)
            content = io.StringIO()
            figure.savefig(content, format="svg", metadata={"Date": None, "Title": alt})
        text = content.getvalue().replace(INK, "currentColor")
        text = re.sub(r"(<svg[^>]*>)", lambda found: found.group(1) + SVG_STYLE, text, count=1)
        return self._picture(f"{name}.svg", text.encode(), alt, (width * 96, height * 96), caption)

    def photo(self, name: str, alt: str, pixels: NDArray[np.uint8], caption: str = "") -> Picture:
        """Pixels, uint8 RGB ``(H, W, 3)``, as JPEG; large ones are made smaller."""
        image = PillowImage.fromarray(pixels)
        image.thumbnail((LONGEST, LONGEST), PillowImage.Resampling.LANCZOS)
        content = io.BytesIO()
        image.save(content, "JPEG", quality=QUALITY)
        return self._picture(f"{name}.jpg", content.getvalue(), alt, image.size, caption)

    def _picture(
        self, name: str, content: bytes, alt: str, size: tuple[float, float], caption: str
    ) -> Picture:
        path = self._folder / "pictures" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        kind = "svg+xml" if name.endswith(".svg") else "jpeg"
        source = f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
        return Picture(f"pictures/{name}", alt, source, round(size[0]), round(size[1]), caption)
