"""The work that everybody does: VGG16's last block and a small head, on folders of images."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

#: VGG16 at 150 pixels ends with 512 maps of 4x4; its last block begins at the convolution of this place.
MAPS = 512 * 4 * 4
LAST_BLOCK = 24
HIDDEN, DROPOUT = 256, 0.5
LR, MOMENTUM = 1e-4, 0.9


@dataclass(frozen=True)
class Work:
    """What is to be done.

    Attributes:
        folder: holds `train`, `val` and `test`, a folder per class in each.
        epochs: how often the training images are gone through.
        augment: whether training images are varied anew each time.
        precision: "float32", or "bfloat16" where the contender has it.
        size: of the images, in pixels.
        batch: images per step.
        workers: processes that load images, for those that have them.
    """

    folder: str
    epochs: int
    augment: bool = False
    precision: str = "float32"
    size: int = 150
    batch: int = 32
    workers: int = 2

    def files(self, part: str) -> list[Path]:
        """The images of a part."""
        return sorted((Path(self.folder) / part).glob("*/*.jpg"))

    def arguments(self) -> str:
        """As one argument on a command line."""
        return json.dumps(asdict(self))


def contend(main: Callable[[Work], dict[str, Any]]) -> None:
    """Does the work of the command line and ends with what came out, as one line of JSON.

    `main` gives `epochs`, the seconds of each training epoch; `test_accuracy`; `predict`, the seconds of its
    predictions of the test images; and what else it measured. A peer also gives `besides`, the seconds of
    what is not part of the experiment.
    """
    print(json.dumps(main(Work(**json.loads(sys.argv[1])))))  # noqa: T201
