"""The photos that the page of a review shows, and where a classifier looks in them."""

from __future__ import annotations

import hashlib
import io
import threading
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from tlkit.data.images import MAX_BYTES, read_image
from tlkit.inference.loading import load
from tlkit.utils.regular_files import read_regular

if TYPE_CHECKING:
    from tlkit.inference.predictor import Predictor

Size = Literal["large", "small"]
#: The longer side of an image's preview, in pixels, and its quality as a JPEG.
PREVIEWS: dict[Size, int] = {"large": 640, "small": 240}
QUALITY = 85


class Photos:
    """Serves photos by the ids of their images. Its methods may be called from several threads.

    Attributes:
        model: a model or run folder that shows where it looks in an image, or None.
    """

    def __init__(self, files: Mapping[str, tuple[Path, str]], model: Path | None) -> None:
        """Takes the file and the hash of every image that may be shown, by id."""
        self._files = files
        self.model = model
        self._explaining = threading.Lock()

    @cached_property
    def predictor(self) -> Predictor:
        """The classifier.

        Raises:
            RunFolderError: it cannot be loaded.
        """
        assert self.model is not None
        return load(self.model)

    def preview(self, image: str, size: Size) -> bytes | None:
        """Returns an image, small enough for the page, as an upright JPEG.

        Returns:
            The JPEG, or None: there is no such image.

        Raises:
            UnreadableImage: it cannot be read any more, or has changed.
        """
        if image not in self._files:
            return None
        path, sha256 = self._files[image]
        pixels = read_image(path, sha256)
        pixels.thumbnail((PREVIEWS[size], PREVIEWS[size]))
        content = io.BytesIO()
        pixels.save(content, "JPEG", quality=QUALITY)
        return content.getvalue()

    def heat(self, image: str, label: str) -> bytes | None:
        """Returns where the classifier looks for a class in an image, as a PNG.

        Returns:
            The PNG, or None: there is no such image, or no classifier.

        Raises:
            UnreadableImage: the image cannot be read any more, or has changed.
            DataError: the classifier does not know the class.
            RunFolderError: the classifier cannot be loaded.
        """
        if image not in self._files or self.model is None:
            return None
        with self._explaining:
            from tlkit.interpret.attribution import explain
            from tlkit.interpret.png import png_bytes

            pixels = read_image(*self._files[image])
            return png_bytes(explain(self.predictor, pixels, label=label).overlay())

    def problem(self, image: str) -> str | None:
        """Returns why nothing can be decided about an image; None: its file is what it was."""
        path, sha256 = self._files[image]
        try:
            changed = photo_sha256(path) != sha256
        except OSError as error:
            return f"{image} cannot be read: {error.strerror or error}"
        return f"{image} has changed" if changed else None


def photo_sha256(path: Path) -> str:
    """Returns the sha256 of a photo's file, in hexadecimal.

    Raises:
        OSError: it cannot be read, or is larger than photos are.
    """
    return hashlib.sha256(read_regular(path, MAX_BYTES)).hexdigest()
