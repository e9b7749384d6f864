"""Reads image files; the only module that does.

Training, evaluation, prediction and export all decode images with `decode`, so rotation, palettes,
transparency, 16-bit greys and CMYK are handled in one place. Sizes are in pixels.
"""

from __future__ import annotations

import hashlib
import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import cast

import PIL
from PIL import Image as PillowImage
from PIL import ImageOps, UnidentifiedImageError
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile

from tlkit.data.damage import ends_in_grey, lacks_scans, lengthen_scans, wrong_checksum
from tlkit.data.image_paths import why_no_images
from tlkit.parts.source import RAW_SUFFIXES, Sample
from tlkit.utils.formatting import printable
from tlkit.utils.regular_files import read_regular

PillowImage.init()
#: Only formats that Pillow decodes itself: EPS, for one, would run Ghostscript on an untrusted file.
FORMATS = tuple(
    name
    for name in ("JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "AVIF", "JPEG2000")
    if name in PillowImage.OPEN
)
#: What the content of other files begins with that are often among photos, and what to do with them.
OTHER_FORMATS = (
    (b"%PDF", "a PDF document: export its pages as PNG or JPEG"),
    (b"<svg", "an SVG drawing: export it as PNG"),
    (b"<?xml", "no image; an SVG drawing has to be exported as PNG"),
)
#: The brands of HEIC, the format of iPhones' photos.
HEIC_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx"})
#: Increase it when `decode` changes pixels, so that cached features are computed again.
DECODING = 1
#: Larger images are rejected: a small file can decompress to more than the memory can hold.
MAX_PIXELS = 100_000_000
MAX_BYTES = 500_000_000
#: Of 16-bit greys; the range of larger ones is unknown.
MAX_GREY = 65535
#: Images are refused whose sides differ by more than this factor: no photo does, and resizing the shorter
#: side to a network's size makes the longer one so large that the memory does not hold it.
MAX_RATIO = 100
#: Rows that are composited at a time.
STRIP = 256


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

    def read(self) -> PillowImage.Image:
        """Returns the upright RGB image; raises as `read_image` does."""
        return read_image(self.sample.path, self.sha256)


@dataclass(frozen=True, slots=True)
class ImageInMemory(Image):
    """An image that is no file; its path is no more than a name for messages, and `sha256` of its pixels.

    Attributes:
        pixels: upright RGB.
    """

    pixels: PillowImage.Image

    @staticmethod
    def of(name: str, pixels: PillowImage.Image) -> ImageInMemory:
        """Identifies an upright RGB image by its pixels."""
        width, height = pixels.size
        content = hashlib.sha256(f"RGB {width}x{height} ".encode() + pixels.tobytes())
        return ImageInMemory(Sample(name, Path(name)), content.hexdigest(), width, height, pixels)

    def read(self) -> PillowImage.Image:
        """Returns the pixels."""
        return self.pixels


class UnreadableImage(Exception):
    """An image that cannot be decoded; the message is the reason."""


class ChangedImage(UnreadableImage):
    """An image file that is not the one that was read before."""


def decode(content: bytes) -> PillowImage.Image:
    """Decodes the content of an image file to an upright RGB image; see `upright`.

    Raises:
        UnreadableImage: it is not an image, is damaged, has an unsupported format, or is too large.
    """
    with refuse_unreadable():
        image = _open(content)
        _load(image, content)
        ImageOps.exif_transpose(image, in_place=True)
        return _to_rgb(image)


def upright(image: PillowImage.Image) -> PillowImage.Image:
    """Converts any Pillow image to an upright RGB image.

    EXIF rotation is applied, transparent pixels are composited over white, 16-bit greys are scaled to 8 bits
    (Pillow alone would clip them), and the first frame of an animation is used.

    Raises:
        UnreadableImage: its file is damaged or closed, its sides differ too much, or its pixels are numbers
            without a known range.
    """
    with refuse_unreadable():
        _check_size(image)
        return _to_rgb(ImageOps.exif_transpose(image))


@contextmanager
def refuse_unreadable() -> Iterator[None]:
    """Turns any exception into an UnreadableImage with the reason: decoders fail on damage in many ways."""
    try:
        yield
    except UnreadableImage:
        raise
    except Exception as error:
        raise UnreadableImage(_reason(error)) from error


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


def read_thumbnail(path: Path, side: int) -> PillowImage.Image:
    """Reads an image file as an upright RGB image of `side` by `side` pixels, whatever its proportions.

    Large JPEGs are decoded at a fraction of their size.

    Raises:
        UnreadableImage: as `decode`.
    """
    with refuse_unreadable():
        image = _open(_read_bytes(path))
        image.draft("RGB", (side, side))
        return upright(image).resize((side, side), PillowImage.Resampling.BOX)


def inspect_image(sample: Sample) -> Image | str:
    """Hashes a sample's file, and checks that it can be decoded.

    A JPEG is decoded at an eighth of its size, which detects damaged files at a fraction of the cost.

    Returns:
        The image, or the reason why it cannot be used.
    """
    try:
        with refuse_unreadable():
            if printable(sample.id) != sample.id:
                raise UnreadableImage("its name is not UTF-8, or holds control characters: rename it")
            content = _read_bytes(sample.path)
            image = _open(content)
            width, height = image.size
            _load(image, content, eighth=True)
            # of a plain JPEG it cannot fail, and would add a tenth to the time
            if image.format != "JPEG" or image.mode != "RGB" or "exif" in image.info:
                upright(image)
    except UnreadableImage as error:
        return str(error)
    return Image(sample, hashlib.sha256(content).hexdigest(), width, height)


def _read_bytes(path: Path) -> bytes:
    if path.suffix.lower() in RAW_SUFFIXES:
        raise UnreadableImage("a camera's raw file: export it as JPEG")
    try:
        content = read_regular(path, MAX_BYTES)
    except IsADirectoryError as error:
        empty = why_no_images(str(path)) is not None
        hint = "a folder without images" if empty else "a folder: give the images in it, or the folder alone"
        raise UnreadableImage(hint) from error
    except OSError as error:
        raise UnreadableImage(_reason(error)) from error
    if not content:
        raise UnreadableImage("the file is empty")
    return content


def decoder_versions() -> tuple[str, ...]:
    """Returns the versions that pixels depend on: Pillow's, and pillow-heif's where it is installed."""
    return (PIL.__version__, *_heif_version())


@cache
def _heif_version() -> tuple[str, ...]:
    try:
        return (metadata.version("pillow-heif"),)
    except metadata.PackageNotFoundError:
        return ()


def _is_heic(content: bytes) -> bool:
    """Returns whether an image is HEIC, as the box at its beginning says (ISO/IEC 23008-12)."""
    end = min(int.from_bytes(content[:4]), 256)
    return content[4:8] == b"ftyp" and any(content[at : at + 4] in HEIC_BRANDS for at in range(8, end, 4))


@cache
def _enable_heic() -> None:
    """Lets Pillow open HEIC.

    Raises:
        UnreadableImage: pillow-heif is not installed.
    """
    try:
        import pillow_heif
    except ModuleNotFoundError as error:
        hint = "pip install 'tlkit[heif]' reads it, or save it as JPEG"
        raise UnreadableImage(f"a HEIC photo: {hint}") from error
    pillow_heif.register_heif_opener(thumbnails=False)


def _open(content: bytes) -> PillowImage.Image:
    formats: tuple[str, ...] = FORMATS
    if _is_heic(content):
        _enable_heic()
        formats = ("HEIF",)
    try:
        with warnings.catch_warnings():
            # Pillow warns of images above its own limit; tlkit's is checked below
            warnings.simplefilter("ignore", PillowImage.DecompressionBombWarning)
            image = PillowImage.open(io.BytesIO(content), formats=formats)
    except UnidentifiedImageError as error:
        start = content[:64].lstrip()
        hints = (hint for prefix, hint in OTHER_FORMATS if start.startswith(prefix))
        raise UnreadableImage(next(hints, "not an image, or of an unsupported format")) from error
    _check_size(image)
    return image


def _check_size(image: PillowImage.Image) -> None:
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise UnreadableImage(f"{width}x{height} pixels are more than {MAX_PIXELS:,}")
    if not width or not height:
        raise UnreadableImage("it has no pixels")
    if max(width, height) > MAX_RATIO * min(width, height):
        raise UnreadableImage(
            f"of {width}x{height} pixels: one side is more than {MAX_RATIO} times the other"
        )


def _load(image: PillowImage.Image, content: bytes, *, eighth: bool = False) -> None:
    """Decodes an opened image; a JPEG, if so asked, at an eighth of its size.

    Raises:
        UnreadableImage: data are missing, or have a wrong checksum.
    """
    if eighth and isinstance(image, JpegImageFile):
        image.draft("RGB", (max(1, image.width // 8), max(1, image.height // 8)))
    image.load()
    if isinstance(image, PngImageFile) and (chunk := wrong_checksum(content)):
        raise UnreadableImage(f"damaged: the checksum of its chunk {chunk} is wrong")
    if isinstance(image, JpegImageFile):
        if lacks_scans(content, image):
            raise UnreadableImage("truncated: not all of its scans are there")
        # only an image that ends in grey is decoded again, to find out whether the grey is its own
        if ends_in_grey(image) and _eighth(content) != _eighth(lengthen_scans(content)):
            raise UnreadableImage("truncated: it has less data than its size needs")


def _eighth(content: bytes) -> bytes:
    """Returns the pixels of a JPEG at an eighth of its size."""
    image = PillowImage.open(io.BytesIO(content), formats=("JPEG",))
    image.draft("RGB", (max(1, image.width // 8), max(1, image.height // 8)))
    return image.tobytes()


def _to_rgb(image: PillowImage.Image) -> PillowImage.Image:
    if image.mode == "F":
        raise UnreadableImage("its pixels are floating-point numbers, which have no fixed range")
    if image.mode.startswith("I;16") or image.mode == "I":
        image = _to_8_bits(image)
    if image.has_transparency_data:
        return _over_white(image)
    return image if image.mode == "RGB" else image.convert("RGB")


def _over_white(image: PillowImage.Image) -> PillowImage.Image:
    result = PillowImage.new("RGB", image.size)
    for top in range(0, image.height, STRIP):  # the whole image in four versions could exceed the memory
        strip = image.crop((0, top, image.width, min(top + STRIP, image.height))).convert("RGBA")
        white = PillowImage.new("RGBA", strip.size, "white")
        result.paste(PillowImage.alpha_composite(white, strip).convert("RGB"), (0, top))
    return result


def _to_8_bits(image: PillowImage.Image) -> PillowImage.Image:
    image = image.convert("I")
    darkest, brightest = cast(tuple[int, int], image.getextrema())
    if darkest < 0 or brightest > MAX_GREY:
        raise UnreadableImage(f"its greys, {darkest} to {brightest}, are not within 0 to {MAX_GREY}")
    return image.point(lambda value: value / 257).convert("L")


def _reason(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__
