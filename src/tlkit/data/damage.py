"""Detects damage that Pillow's decoders pass over: data that end early, and wrong checksums.

libjpeg fills what is missing in grey and only warns, which Pillow hides; Pillow does not compare the
checksums of a PNG's pixels. All checks are exact: no complete image is refused.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator

from PIL import Image as PillowImage

# Markers of JPEG (ITU-T T.81, table B.1)
_START_OF_SCAN, _END_OF_IMAGE, _FIRST_RESTART, _RESTARTS = 0xDA, 0xD9, 0xD0, 8
_PROGRESSIVE = frozenset({0xC2, 0xC6, 0xCA, 0xCE})
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
#: A marker besides restarts, which are part of a scan's data, as is an FF with 00 behind it.
_MARKER = re.compile(rb"\xff+([\x01-\xcf\xd8-\xfe])")
_RESTART = re.compile(rb"\xff([\xd0-\xd7])")
_COEFFICIENTS = 64
#: Bytes that decode to something else than grey, whatever the tables; without FF, which begins a marker.
_FILLING = bytes(range(1, 255))


def ends_in_grey(image: PillowImage.Image) -> bool:
    """Returns whether a decoded JPEG's last pixel has the grey that libjpeg fills missing blocks with."""
    pixel = image.getpixel((image.width - 1, image.height - 1))
    return all(value in (127, 128) for value in (pixel if isinstance(pixel, tuple) else (pixel,)))


def lengthen_scans(content: bytes) -> bytes:
    """Appends bytes to the data of each of a JPEG's scans.

    Of a complete image they change nothing: the decoder stops in front of them. Where it needs more data
    than there are, it decodes them.
    """
    pieces: list[bytes] = []
    begin = scan = 0
    for marker, start, end in _segments(content):
        if scan:
            restarts = _RESTART.findall(content, scan, start)
            following = (restarts[-1][0] - _FIRST_RESTART + 1) % _RESTARTS if restarts else 0
            # also behind a restart marker: a decoder that waits for it skips everything else
            restart = bytes([0xFF, _FIRST_RESTART + following])
            pieces += [content[begin:start], _FILLING, restart, _FILLING]
            begin = start
        scan = end if marker == _START_OF_SCAN else 0
    return b"".join([*pieces, content[begin:]])


def lacks_scans(content: bytes, image: PillowImage.Image) -> bool:
    """Returns whether scans of a JPEG are missing: a component, or, if progressive, some of its precision."""
    bands = len(image.getbands())
    if "progressive" not in image.info and bytes([0xFF, _START_OF_SCAN, 0, 6 + 2 * bands, bands]) in content:
        return False  # the usual image: one scan has all components
    missing: set[tuple[int, int]] = (
        set()
    )  # (component, coefficient); only a progressive one has scans of some
    progressive = False
    for marker, start, end in _segments(content):
        payload = content[start + 4 : end]
        if marker in _FRAMES:
            progressive = marker in _PROGRESSIVE
            coefficients = range(_COEFFICIENTS if progressive else 1)
            missing = {(component, number) for component in payload[6::3] for number in coefficients}
        elif marker == _START_OF_SCAN:
            first, last, bits = payload[-3:] if progressive else (0, 0, 0)
            if not bits & 15:  # with these bits, the numbers are precise
                span = range(first, last + 1)
                components = payload[1 : 1 + 2 * payload[0] : 2]
                missing -= {(component, number) for component in components for number in span}
            if not missing:
                return False
    return bool(missing)


def wrong_checksum(content: bytes) -> str | None:
    """Returns the type of the first critical chunk of a PNG with a wrong checksum, or None."""
    view = memoryview(content)
    position = 8
    while position + 8 <= len(content):
        length = int.from_bytes(view[position : position + 4])
        kind = bytes(view[position + 4 : position + 8])
        end = position + 8 + length
        is_critical = not kind[0] & 0x20
        if is_critical and zlib.crc32(view[position + 4 : end]) != int.from_bytes(view[end : end + 4]):
            return kind.decode("ascii", "backslashreplace")
        if kind == b"IEND":
            return None
        position = end + 4
    return None


def _segments(content: bytes) -> Iterator[tuple[int, int, int]]:
    """Yields the code, the start and the end of each marker segment of a JPEG, up to the end of the image."""
    position = 2
    while match := _MARKER.search(content, position):
        marker, start = match[1][0], match.end() - 2
        if marker == _END_OF_IMAGE:
            yield marker, start, match.end()
            return
        position = match.end() + int.from_bytes(content[match.end() : match.end() + 2])
        yield marker, start, position
