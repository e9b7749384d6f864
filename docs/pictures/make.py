"""Makes the pictures that README.md and docs show: of the drawn world, and of a run's report.

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


def grid(setting: str, rows: int, columns: int) -> Image.Image:
    """The first images of a setting's first seed."""
    picture = Image.new("RGB", (columns * SIZE, rows * SIZE))
    for number in range(rows * columns):
        with Image.open(io.BytesIO(draw(setting, 1, number))) as image:
            picture.paste(image, (number % columns * SIZE, number // columns * SIZE))
    return picture


def joined(rows: list[list[Path]], gap: int = 6) -> Image.Image:
    """Pictures of one size side by side, in rows."""
    pictures = [[Image.open(path) for path in row] for row in rows]
    width, height = pictures[0][0].size
    columns = len(rows[0])
    whole = Image.new("RGB", (columns * (width + gap) - gap, len(rows) * (height + gap) - gap), "white")
    for down, row in enumerate(pictures):
        for across, picture in enumerate(row):
            whole.paste(picture, (across * (width + gap), down * (height + gap)))
    return whole


def report(pictures: Path) -> None:
    """Some of a report's pictures."""
    for name in ("accuracies", "networks"):
        shutil.copyfile(pictures / f"{name}.svg", HERE / f"report-{name}.svg")
    rows = [
        [
            path
            for place in range(1, 4)
            for path in (pictures / f"{name}-{place}{end}.jpg" for end in ("", "-heat"))
        ]
        for name in ("mistake", "changed")
    ]
    joined(rows).save(HERE / "report-examples.jpg", quality=85)
    layers = dict.fromkeys(path.stem.rpartition("-")[0] for path in pictures.glob("layer-*.jpg"))
    order = sorted(layers, key=lambda name: int(name.rpartition(".")[2]))
    rows = [[pictures / f"{layer}-{way}.jpg" for way in ("none", "l2", "blur")] for layer in order]
    joined(rows).save(HERE / "report-layers.jpg", quality=85)


if __name__ == "__main__":
    grid("street", 3, 8).save(HERE / "street.jpg", quality=80)
    grid("studio", 4, 7).save(HERE / "studio.jpg", quality=80)
    report(Path(sys.argv[1]) / "pictures")
