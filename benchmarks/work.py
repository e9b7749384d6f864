"""The work of every contender: training VGG16's last block and a small head on folders of images."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

#: VGG16 at 150 pixels ends with 512 maps of 4x4; its last block begins at the convolution with this index.
MAPS = 512 * 4 * 4
LAST_BLOCK = 24
HIDDEN, DROPOUT = 256, 0.5
LR, MOMENTUM = 1e-4, 0.9


@dataclass(frozen=True)
class Work:
    """What a contender is to do.

    Attributes:
        folder: holds `train`, `val` and `test`, with a folder per class in each.
        epochs: number of epochs.
        augment: whether training images are augmented.
        precision: "float32", or "bfloat16" where the contender supports it.
        size: of the images, in pixels.
        batch: number of images per step.
        workers: number of processes that load images, where the contender uses processes.
    """

    folder: str
    epochs: int
    augment: bool = False
    precision: str = "float32"
    size: int = 150
    batch: int = 32
    workers: int = 2

    def files(self, split: str) -> list[Path]:
        """Returns the images of a split."""
        return sorted((Path(self.folder) / split).glob("*/*.jpg"))

    def arguments(self) -> str:
        """Returns the work as one argument of a command line."""
        return json.dumps(asdict(self))


def contend(main: Callable[[Work], dict[str, Any]]) -> None:
    """Does the work that the command line describes, and prints what was measured as one line of JSON.

    `main` returns `epochs`, the seconds of each training epoch; `test_accuracy`; `predict`, the seconds of
    predicting the test images; and whatever else it measured. A peer also returns `besides`, the seconds of
    what is not part of the experiment.
    """
    print(json.dumps(main(Work(**json.loads(sys.argv[1])))))  # noqa: T201
