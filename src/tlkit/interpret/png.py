"""Pictures as files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tlkit.errors import ReportError


def write_png(path: Path, pixels: NDArray[np.uint8]) -> Path:
    """Writes uint8 RGB ``(H, W, 3)``.

    Raises:
        ReportError: it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    except OSError as error:
        raise ReportError(f"{path} cannot be written: {error.strerror or error}") from error
    return path
