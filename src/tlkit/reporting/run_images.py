"""The image files of a run, found again for its report."""

from __future__ import annotations

import hashlib
import tempfile
from dataclasses import replace
from pathlib import Path
from types import TracebackType

import numpy as np
from PIL import Image as PillowImage

from tlkit.data.images import ChangedImage, Image, UnreadableImage, read_image
from tlkit.experiment.record import RunRecord, find_image_files
from tlkit.parts.source import Sample
from tlkit.plugins.registry import Registry
from tlkit.reporting.missing import Missing
from tlkit.reporting.pictures import LONGEST, Album, Picture


class RunImages:
    """Finds a run's images, as long as they have not changed since. A context manager."""

    def __init__(self, record: RunRecord, registry: Registry, missing: Missing) -> None:
        """Adds to `missing` why images cannot be found."""
        self._samples, self._source, problem = find_image_files(record.recipe, registry)
        self._rows = {row.id: row for row in record.images}
        self._missing = missing
        self._generated: tempfile.TemporaryDirectory[str] | None = None
        if problem:
            missing.add(f"The run's images cannot be shown: {problem}")

    def __enter__(self) -> RunImages:
        """Returns itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Removes images that were generated for the report."""
        if self._generated is not None:
            self._generated.cleanup()

    def find(self, image_id: str) -> Image | None:
        """Returns an image of the run, or None if it is missing or not the file that it was."""
        opened = self.read(image_id)
        return opened[0] if opened else None

    def read(self, image_id: str) -> tuple[Image, PillowImage.Image] | None:
        """Returns an image of the run and its pixels, or None; see `find`."""
        row, sample = self._rows.get(image_id), self._samples.get(image_id)
        if row is None or sample is None:
            if self._source is not None:
                self._missing.add("Some images of the run are no longer in its source and cannot be shown.")
            return None
        try:
            sample = self._with_file(sample)
            pixels = read_image(sample.path, row.sha256)
            return Image(sample, row.sha256, row.width, row.height), pixels
        except ChangedImage:
            self._missing.add("Some images of the run have been changed since and are not shown.")
        except UnreadableImage:
            self._missing.add("Some images of the run can no longer be read and are not shown.")
        return None

    def photo(
        self, image_id: str, album: Album, file: str, alt: str, caption: str, *, longest: int = LONGEST
    ) -> Picture | None:
        """Makes the picture of an image of the run, or returns None; see `find` and `Album.photo`."""
        opened = self.read(image_id)
        return album.photo(file, alt, np.asarray(opened[1]), caption, longest=longest) if opened else None

    def first(self, split: str) -> Image | None:
        """Returns the first image of a split; see `find`."""
        row = next((row for row in self._rows.values() if row.split == split), None)
        return self.find(row.id) if row else None

    def _with_file(self, sample: Sample) -> Sample:
        """Generates the file of an image that its source generates, in a temporary folder.

        The recipe may be a stranger's: paths that it names are read, never written.
        """
        if self._source is None or self._source.make is None or sample.path.is_file():
            return sample
        self._generated = self._generated or tempfile.TemporaryDirectory()
        path = Path(self._generated.name) / hashlib.sha256(sample.id.encode()).hexdigest()
        path.write_bytes(self._source.make(sample))
        return replace(sample, path=path)
