"""From a file to pixels: the one place where images are read.

Everything that looks at an image (training, evaluation, prediction, export) goes through `decode`,
so rotation, palettes, transparency, 16-bit and CMYK are handled once. Sizes are in pixels.
"""

from __future__ import annotations

import hashlib
import io
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from PIL import Image as PillowImage
from PIL import ImageOps, UnidentifiedImageError

from tlkit.parts.source import Sample

PillowImage.init()
#: Only formats that Pillow decodes itself: EPS, for one, would start Ghostscript on a stranger's file.
FORMATS = tuple(
    name
    for name in ("JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "AVIF", "JPEG2000")
    if name in PillowImage.OPEN
)
#: To be raised when `decode` gives other pixels than before: kept features are then made again.
DECODING = 1
#: Larger images are refused: a small file can unpack to more than the memory there is.
MAX_PIXELS = 100_000_000
MAX_BYTES = 500_000_000


@dataclass(frozen=True, slots=True)
class Image:
    """A sample whose file was read and found sound.

    Attributes:
        sample: what the source said of it.
        sha256: of the file's bytes, in hexadecimal: what kept features are found by.
        width: as stored, before any EXIF rotation.
        height: as stored, before any EXIF rotation.
    """

    sample: Sample
    sha256: str
    width: int
    height: int


class UnreadableImage(Exception):
    """An image that cannot be decoded; its text is the reason."""


def decode(content: bytes) -> PillowImage.Image:
    """Decodes an image file's content to an upright RGB image; see `upright`.

    Raises:
        UnreadableImage: not an image, cut short, of a format that is not read, or too large.
    """
    image = _open(content)
    try:
        image.load()
        return upright(image)
    except (OSError, ValueError, SyntaxError, MemoryError, PillowImage.DecompressionBombError) as error:
        raise UnreadableImage(_reason(error)) from error


def upright(image: PillowImage.Image) -> PillowImage.Image:
    """Any of Pillow's images as an upright RGB image.

    EXIF rotation is applied; transparent pixels are laid over white; 16-bit greys are scaled to 8 bits
    (Pillow alone would cut them off); of an animation the first picture is taken.
    """
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I;16") or image.mode == "I":
        image = image.convert("I").point(lambda value: value / 257).convert("L")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = PillowImage.alpha_composite(PillowImage.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def read_image(path: Path) -> PillowImage.Image:
    """Reads and decodes an image file; see `decode`."""
    return decode(_content(path))


def inspect_images(
    samples: Sequence[Sample], *, threads: int, tick: Callable[[int], object] = lambda _: None
) -> tuple[list[Image], list[tuple[str, str]]]:
    """Reads every sample's file once, to identify it by content and to see that it decodes.

    JPEGs are decoded at an eighth of their size, which finds a damaged file at a fraction of the cost.

    Args:
        samples: what to read.
        threads: how many files are read at a time.
        tick: called with 1 after each file.

    Returns:
        The sound images in the samples' order, and (id, reason) of every file that is not.
    """
    images: list[Image] = []
    rejected: list[tuple[str, str]] = []
    with ThreadPoolExecutor(threads) as pool:
        for sample, found in zip(samples, pool.map(_inspect_one, samples), strict=True):
            if isinstance(found, Image):
                images.append(found)
            else:
                rejected.append((sample.id, found))
            tick(1)
    return images, rejected


def _inspect_one(sample: Sample) -> Image | str:
    try:
        content = _content(sample.path)
        image = _open(content)
        width, height = image.size
        image.draft("RGB", (max(1, width // 8), max(1, height // 8)))
        image.load()
    except UnreadableImage as error:
        return str(error)
    except (OSError, ValueError, SyntaxError, MemoryError) as error:
        return _reason(error)
    return Image(sample, hashlib.sha256(content).hexdigest(), width, height)


def _content(path: Path) -> bytes:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise UnreadableImage(f"the file is larger than {MAX_BYTES:,} bytes")
        content = path.read_bytes()
    except OSError as error:
        raise UnreadableImage(_reason(error)) from error
    if not content:
        raise UnreadableImage("the file is empty")
    return content


def _open(content: bytes) -> PillowImage.Image:
    try:
        with warnings.catch_warnings():
            # Pillow warns of large images by its own limit; ours is checked below
            warnings.simplefilter("ignore", PillowImage.DecompressionBombWarning)
            image = PillowImage.open(io.BytesIO(content), formats=FORMATS)
    except UnidentifiedImageError as error:
        raise UnreadableImage("not an image, or of a format that is not read") from error
    except (OSError, ValueError, SyntaxError, PillowImage.DecompressionBombError) as error:
        raise UnreadableImage(_reason(error)) from error
    if image.width * image.height > MAX_PIXELS:
        raise UnreadableImage(f"{image.width}x{image.height} pixels are more than {MAX_PIXELS:,}")
    return image


def _reason(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__
