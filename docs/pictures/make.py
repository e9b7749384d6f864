"""Makes the pictures of README.md and docs: of the drawn world, and from a run's report.

uv run python docs/pictures/make.py runs/catsdogs/1
"""

from __future__ import annotations

import io
import shutil
import sys
from pathlib import Path

from PIL import Image
from tlkit_catsdogs.drawn.scene import SIZE
from tlkit_catsdogs.drawn.world import draw

HERE = Path(__file__).parent


def draw_grid(setting: str, rows: int, columns: int) -> Image.Image:
    """Draws the first images of a setting's first seed."""
    grid = Image.new("RGB", (columns * SIZE, rows * SIZE))
    for number in range(rows * columns):
        with Image.open(io.BytesIO(draw(setting, 1, number))) as image:
            grid.paste(image, (number % columns * SIZE, number // columns * SIZE))
    return grid


def join(rows: list[list[Path]], gap: int = 6) -> Image.Image:
    """Joins pictures of one size into a grid."""
    pictures = [[Image.open(path) for path in row] for row in rows]
    width, height = pictures[0][0].size
    columns = len(rows[0])
    grid = Image.new("RGB", (columns * (width + gap) - gap, len(rows) * (height + gap) - gap), "white")
    for row, line in enumerate(pictures):
        for column, picture in enumerate(line):
            grid.paste(picture, (column * (width + gap), row * (height + gap)))
    return grid


def copy_report_pictures(pictures: Path) -> None:
    """Copies charts of a report, and joins photos."""
    for name in ("accuracies", "networks"):
        shutil.copyfile(pictures / f"{name}.svg", HERE / f"report-{name}.svg")
    rows = [
        [
            path
            for number in range(1, 4)
            for path in (pictures / f"{kind}-{number}{suffix}.jpg" for suffix in ("", "-heat"))
        ]
        for kind in ("mistake", "unsure")
    ]
    join(rows).save(HERE / "report-examples.jpg", quality=85)
    layers = {path.stem.rpartition("-")[0] for path in pictures.glob("layer-*.jpg")}
    order = sorted(layers, key=lambda layer: int(layer.rpartition(".")[2]))
    rows = [
        [pictures / f"{layer}-{regularization}.jpg" for regularization in ("none", "l2", "blur")]
        for layer in order
    ]
    join(rows).save(HERE / "report-layers.jpg", quality=85)


if __name__ == "__main__":
    draw_grid("street", 3, 8).save(HERE / "street.jpg", quality=80)
    draw_grid("studio", 4, 7).save(HERE / "studio.jpg", quality=80)
    copy_report_pictures(Path(sys.argv[1]) / "pictures")
