"""Makes damaged images of every format that Pillow writes, and decodes them.

Not a test: `tests/attack/test_images.py` runs it as a process of its own, whose memory it can measure:
``python image_mutants.py COUNT SEED`` prints what came of the images as a JSON object.
"""

from __future__ import annotations

import io
import json
import random
import resource
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image

from tlkit.data.images import FORMATS, UnreadableImage, decode
from tlkit.data.inspection import inspect_images
from tlkit.parts.source import Sample

#: What Pillow writes each format with.
OPTIONS: dict[str, list[dict[str, object]]] = {
    "JPEG": [{}, {"progressive": True}, {"restart_marker_rows": 1}, {"subsampling": 0}],
    "TIFF": [{}, {"compression": "tiff_lzw"}, {"compression": "jpeg"}, {"compression": "tiff_deflate"}],
    "WEBP": [{}, {"lossless": True}],
}
MODES = {"JPEG": ("RGB", "L", "CMYK"), "PPM": ("RGB", "L"), "BMP": ("RGB", "L"), "AVIF": ("RGB", "RGBA")}
#: Bytes of a file that hold its header.
HEADER = 64


def originals() -> list[bytes]:
    """Returns images of every format, mode and kind of compression."""
    rng = np.random.default_rng(1)
    coarse = Image.fromarray(rng.integers(0, 255, (6, 8, 3), np.uint8))
    picture = coarse.resize((80, 60), Image.Resampling.BICUBIC)
    contents = []
    for kind in FORMATS:
        for options in OPTIONS.get(kind, [{}]):
            for mode in MODES.get(kind, ("RGB", "L", "RGBA")):
                stream = io.BytesIO()
                try:
                    picture.convert(mode).save(stream, kind, **options)
                except OSError:  # such as transparency in a JPEG that is packed into a TIFF
                    continue
                contents.append(stream.getvalue())
    return contents


def mutants(count: int, seed: int) -> Iterator[bytes]:
    """Yields images with bytes flipped, cut, repeated or overwritten, above all in their headers."""
    rng = random.Random(seed)
    contents = originals()
    for _ in range(count):
        content = bytearray(rng.choice(contents))
        for _ in range(rng.choice((1, 1, 2, 5))):
            end = len(content) if rng.random() < 0.5 else min(HEADER, len(content))
            start = rng.randrange(end) if end else 0
            change = rng.randrange(5)
            if change == 0 and content:
                content[start] ^= 1 << rng.randrange(8)
            elif change == 1:
                content[start : start + rng.choice((1, 2, 4))] = rng.randbytes(4)
            elif change == 2:
                del content[start : start + rng.choice((1, 10, 10_000))]
            elif change == 3:
                content[start:start] = content[start : start + rng.choice((1, 10, 1000))]
            else:
                content[start : start + 2] = rng.choice((b"\0\0", b"\xff\xff", b"\x7f\xff", b"\xff\xd9"))
        yield bytes(content)


def declared_size(content: bytes) -> set[tuple[int, int]]:
    """Returns the sizes that an upright image may have: as stored, or turned."""
    with Image.open(io.BytesIO(content), formats=FORMATS) as image:
        return {image.size, image.size[::-1]}


def main(count: int, seed: int) -> dict[str, object]:
    """Decodes mutants as prediction and as a run does; returns counts, and each outcome that must not be."""
    warnings.simplefilter("ignore")  # Pillow warns of odd metadata
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    outcomes = {"decoded": 0, "refused": 0}
    wrong: list[str] = []
    slowest, began = 0.0, time.monotonic()
    with TemporaryDirectory() as folder:
        file = Path(folder, "image")
        for number, content in enumerate(mutants(count, seed)):
            file.write_bytes(content)
            start = time.monotonic()
            try:
                usable, _ = inspect_images([Sample("image", file)], threads=1)
                image = decode(content)
                outcomes["decoded"] += 1
                if image.mode != "RGB" or image.size not in declared_size(content) or not usable:
                    wrong.append(f"{number}: {image.mode} {image.size}, usable: {bool(usable)}")
            except UnreadableImage as error:
                outcomes["refused"] += 1
                if usable:
                    wrong.append(f"{number}: usable in a run, but {error}")
            except BaseException as error:
                wrong.append(f"{number}: {type(error).__name__}: {error}")
            slowest = max(slowest, time.monotonic() - start)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    seconds = time.monotonic() - began
    return {**outcomes, "wrong": wrong, "slowest": slowest, "seconds": seconds, "memory": grown}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(int(sys.argv[1]), int(sys.argv[2]))) + "\n")
