"""Makes the pictures of the drawn world that README.md and docs show.

uv run python docs/pictures/make.py
"""

from __future__ import annotations

import io
from pathlib import Path

from PIL import Image
from tlkit_catsdogs.drawn.scene import SIZE
from tlkit_catsdogs.drawn.world import draw

HERE = Path(__file__).parent


def grid(setting: str, rows: int, columns: int) -> Image.Image:
    """The first images of a setting's first seed."""
    picture = Image.new("RGB", (columns * SIZE, rows * SIZE))
    for number in range(rows * columns):
        with Image.open(io.BytesIO(draw(setting, 1, number))) as image:
            picture.paste(image, (number % columns * SIZE, number // columns * SIZE))
    return picture


if __name__ == "__main__":
    grid("street", 3, 8).save(HERE / "street.jpg", quality=80)
    grid("studio", 4, 7).save(HERE / "studio.jpg", quality=80)
