"""Where labelled images come from, as a plugin describes it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

SplitName = Literal["train", "val", "test"]
SPLITS: tuple[SplitName, ...] = ("train", "val", "test")

#: Suffixes of cameras' raw files. Many are TIFF files whose first image is a small preview.
RAW_SUFFIXES = frozenset(".cr2 .cr3 .nef .arw .dng .orf .pef .raf .rw2 .srw".split())
#: Suffixes of the files in an image folder that count as images. Formats that tlkit cannot read are
#: included on purpose: such a photo is then reported instead of overlooked.
IMAGE_SUFFIXES = frozenset(
    ".jpg .jpeg .jpe .jfif .png .gif .bmp .tif .tiff .webp .ppm .pgm .pbm .pnm "
    ".avif .heic .heif .jp2 .jxl .svg .pdf".split()
).union(RAW_SUFFIXES)


class RecordedFile(NamedTuple):
    """What was known of an image file when it was read.

    Attributes:
        size: in bytes.
        mtime: its time of modification, in nanoseconds since the epoch.
        sha256: hash of its bytes, in hexadecimal.
        width: in pixels, as stored.
        height: in pixels, as stored.
    """

    size: int
    mtime: int
    sha256: str
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class Sample:
    """One image file.

    Attributes:
        id: unique and stable within its source, with ``/`` between folders; results name the image by it.
        path: the file.
        label: index into the source's classes, or None for an unlabelled image.
        split: the split that the source assigns, or None where tlkit draws it.
        labels: for ``task = "multilabel"``, in place of `label`: indices of all classes that the image has,
            which may be none of them; None for an unlabelled image.
        recorded: what is known of the file, which is not read to be hashed while its size and its time of
            modification are those; None: nothing.
        group: what the image was taken of, such as a patient or a video; images of one group are in the same
            fold of a cross-validation. None: it stands alone.
    """

    id: str
    path: Path
    label: int | None = None
    split: SplitName | None = None
    labels: tuple[int, ...] | None = None
    recorded: RecordedFile | None = None
    group: str | None = None

    @property
    def is_labelled(self) -> bool:
        """Whether the source says which classes the image has."""
        return self.label is not None or self.labels is not None

    @property
    def class_indices(self) -> tuple[int, ...]:
        """Indices of the classes that the image has: one, or, with several labels per image, any number."""
        if self.labels is not None:
            return self.labels
        return () if self.label is None else (self.label,)


@dataclass(frozen=True, slots=True)
class Download:
    """An archive that a source's images can be downloaded from.

    Attributes:
        url: its address.
        size: in bytes.
        sha256: its checksum, in hexadecimal.
        unpack_to: the folder to unpack it into, relative to the source's root.
    """

    url: str
    size: int
    sha256: str
    unpack_to: str = "."


@dataclass(frozen=True, slots=True)
class Source:
    """Labelled images, and unlabelled ones where there are any.

    Attributes:
        classes: class names; a label is an index into them.
        samples: the labelled images; all of them with `label`, or all with `labels`.
        unlabelled: images without a label.
        downloads: what `tlkit fetch` downloads when the images are missing.
        make: returns the content of an image's file, for sources that generate their images; it must
            return the same bytes for the same sample every time.
        about: a sentence about the images that every reader of the results should know.
    """

    classes: tuple[str, ...]
    samples: Sequence[Sample]
    unlabelled: Sequence[Sample] = ()
    downloads: Sequence[Download] = ()
    make: Callable[[Sample], bytes] | None = None
    about: str = ""

    def __len__(self) -> int:
        """Returns the number of images, with and without a label."""
        return len(self.samples) + len(self.unlabelled)
