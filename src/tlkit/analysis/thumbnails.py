"""Small grey images of many photos: in memory while they are few, then in a temporary file."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tlkit.analysis.alignment import THUMBNAIL, coarse_templates
from tlkit.data.images import Image, UnreadableImage, read_thumbnail
from tlkit.errors import DataError
from tlkit.experiment.observer import Observer
from tlkit.runtime.processors import reader_threads

#: Bytes of a thumbnail, and of all thumbnails that are held in memory: those of 7,000 images.
SIZE, MAX_IN_MEMORY = THUMBNAIL**2, 2**26
#: Images that are read at a time.
BLOCK = 256


class Thumbnails:
    """Thumbnails of images, `THUMBNAIL` pixels wide and high. Use it in a ``with`` statement.

    Attributes:
        templates: each image, and its mirror image, in a few pixels; see `coarse_templates`.
    """

    templates: Tensor

    def __init__(self, images: Sequence[Image], observer: Observer) -> None:
        """Reads the images.

        Raises:
            DataError: an image cannot be read any more, or the disk is full.
        """
        templates = []
        self._file = tempfile.SpooledTemporaryFile(MAX_IN_MEMORY)
        try:
            with observer.progress("reading thumbnails", len(images), "images") as tick:
                for rows in torch.split(torch.arange(len(images)), BLOCK):
                    pixels = read_pixels(images, rows, THUMBNAIL)
                    self._write(pixels.numpy())
                    templates.append(coarse_templates(as_grey(pixels)))
                    tick(len(rows))
        except BaseException:
            self._file.close()
            raise
        self.templates = torch.cat(templates)

    def __enter__(self) -> Thumbnails:
        """Returns itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Removes the file."""
        self._file.close()

    def greys(self, chosen: Tensor) -> Tensor:
        """Returns thumbnails of the chosen images, from 0 to 1, ``(n, THUMBNAIL, THUMBNAIL)``."""
        pixels = np.empty((len(chosen), SIZE), np.uint8)
        for row, index in zip(pixels, chosen.tolist(), strict=True):
            self._file.seek(index * SIZE)
            self._file.readinto(row.data)
        return as_grey(torch.from_numpy(pixels).view(-1, THUMBNAIL, THUMBNAIL))

    def _write(self, pixels: NDArray[np.uint8]) -> None:
        try:
            self._file.write(pixels.tobytes())
        except OSError as error:
            raise DataError(
                f"thumbnails cannot be written to {tempfile.gettempdir()}: {error.strerror or error}; "
                "TMPDIR can name another folder"
            ) from error


def read_pixels(images: Sequence[Image], chosen: Tensor, side: int) -> Tensor:
    """Returns thumbnails of the chosen images, uint8 ``(n, side, side)``.

    Raises:
        DataError: an image cannot be read any more.
    """

    def read(index: int) -> NDArray[np.uint8]:
        sample = images[index].sample
        try:
            return np.array(read_thumbnail(sample.path, side).convert("L"))
        except UnreadableImage as error:
            raise DataError(f"{sample.path} cannot be read any more: {error}") from error

    with ThreadPoolExecutor(reader_threads()) as pool:
        return torch.from_numpy(np.stack(list(pool.map(read, chosen.tolist()))))


def as_grey(thumbnails: Tensor) -> Tensor:
    """Returns greys from 0 to 1."""
    return thumbnails.float() / 255
