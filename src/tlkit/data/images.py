"""Reads image files; the only module that does.

Training, evaluation, prediction and export all decode images with `decode`, so rotation, palettes,
transparency, 16-bit greys and CMYK are handled in one place. Sizes are in pixels.
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
from tlkit.utils.regular_files import read_regular

PillowImage.init()
#: Only formats that Pillow decodes itself: EPS, for one, would run Ghostscript on an untrusted file.
FORMATS = tuple(
    name
    for name in ("JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "AVIF", "JPEG2000")
    if name in PillowImage.OPEN
)
#: Increase it when `decode` changes pixels, so that cached features are computed again.
DECODING = 1
#: Larger images are rejected: a small file can decompress to more than the memory can hold.
MAX_PIXELS = 100_000_000
MAX_BYTES = 500_000_000


@dataclass(frozen=True, slots=True)
class Image:
    """A sample whose file has been read and can be decoded.

    Attributes:
        sample: the sample, as the source lists it.
        sha256: hash of the file's bytes, in hexadecimal; cached features are found by it.
        width: as stored, before any EXIF rotation.
        height: as stored, before any EXIF rotation.
    """

    sample: Sample
    sha256: str
    width: int
    height: int


class UnreadableImage(Exception):
    """An image that cannot be decoded; the message is the reason."""


class ChangedImage(UnreadableImage):
    """An image file that is not the one that was read before."""


def decode(content: bytes) -> PillowImage.Image:
    """Decodes the content of an image file to an upright RGB image; see `upright`.

    Raises:
        UnreadableImage: it is not an image, is truncated, has an unsupported format, or is too large.
    """
    image = _open(content)
    try:
        image.load()
        return upright(image)
    except (OSError, ValueError, SyntaxError, MemoryError, PillowImage.DecompressionBombError) as error:
        raise UnreadableImage(_reason(error)) from error


def upright(image: PillowImage.Image) -> PillowImage.Image:
    """Converts any Pillow image to an upright RGB image.

    EXIF rotation is applied, transparent pixels are composited over white, 16-bit greys are scaled to 8 bits
    (Pillow alone would clip them), and the first frame of an animation is used.
    """
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I;16") or image.mode == "I":
        image = image.convert("I").point(lambda value: value / 257).convert("L")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = PillowImage.alpha_composite(PillowImage.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def read_image(path: Path, sha256: str | None = None) -> PillowImage.Image:
    """Reads and decodes an image file; see `decode`.

    Args:
        path: the file.
        sha256: the hash of its bytes when it was read before; None: it was not.

    Raises:
        UnreadableImage: as `decode`.
        ChangedImage: it has another hash.
    """
    content = _read_bytes(path)
    if sha256 is not None and hashlib.sha256(content).hexdigest() != sha256:
        raise ChangedImage("the file has changed since it was read")
    return decode(content)


def inspect_images(
    samples: Sequence[Sample], *, threads: int, tick: Callable[[int], object] = lambda _: None
) -> tuple[list[Image], list[tuple[str, str]]]:
    """Reads every sample's file once, to hash its content and to check that it can be decoded.

    JPEGs are decoded at an eighth of their size, which detects damaged files at a fraction of the cost.

    Args:
        samples: the samples to read.
        threads: how many files are read at a time.
        tick: called with 1 after each file.

    Returns:
        The images that can be decoded, in the samples' order, and (id, reason) of each of the others.
    """
    images: list[Image] = []
    rejected: list[tuple[str, str]] = []
    with ThreadPoolExecutor(threads) as pool:
        for sample, result in zip(samples, pool.map(_inspect, samples), strict=True):
            if isinstance(result, Image):
                images.append(result)
            else:
                rejected.append((sample.id, result))
            tick(1)
    return images, rejected


def _inspect(sample: Sample) -> Image | str:
    """Returns the image, or the reason why it cannot be decoded."""
    try:
        content = _read_bytes(sample.path)
        image = _open(content)
        width, height = image.size
        image.draft("RGB", (max(1, width // 8), max(1, height // 8)))
        image.load()
    except UnreadableImage as error:
        return str(error)
    except (OSError, ValueError, SyntaxError, MemoryError) as error:
        return _reason(error)
    return Image(sample, hashlib.sha256(content).hexdigest(), width, height)


def _read_bytes(path: Path) -> bytes:
    try:
        content = read_regular(path, MAX_BYTES)
    except OSError as error:
        raise UnreadableImage(_reason(error)) from error
    if not content:
        raise UnreadableImage("the file is empty")
    return content


def _open(content: bytes) -> PillowImage.Image:
    try:
        with warnings.catch_warnings():
            # Pillow warns of images above its own limit; tlkit's is checked below
            warnings.simplefilter("ignore", PillowImage.DecompressionBombWarning)
            image = PillowImage.open(io.BytesIO(content), formats=FORMATS)
    except UnidentifiedImageError as error:
        raise UnreadableImage("not an image, or of an unsupported format") from error
    except (OSError, ValueError, SyntaxError, PillowImage.DecompressionBombError) as error:
        raise UnreadableImage(_reason(error)) from error
    if image.width * image.height > MAX_PIXELS:
        raise UnreadableImage(f"{image.width}x{image.height} pixels are more than {MAX_PIXELS:,}")
    return image


def _reason(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__
