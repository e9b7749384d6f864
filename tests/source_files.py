"""What tests of sources share: small images and tables in a folder."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from PIL import Image

from tlkit.parts.source import Sample


def draw(root: Path, *names: str) -> None:
    """Writes a small image under each name."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4), (200, 10, 10)).save(root / name, "PNG")


def table(root: Path, lines: Iterable[str], name: str = "labels.csv") -> None:
    """Writes lines to a file."""
    (root / name).write_text("\n".join(lines) + "\n", encoding="utf-8")


def ids(samples: Iterable[Sample]) -> list[str]:
    """Returns the samples' ids."""
    return [sample.id for sample in samples]
