"""Hashes image files and checks that they can be decoded; files that have not changed are not read again."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from multiprocessing.pool import ThreadPool

import PIL

from tlkit.data.image_index import FileIdentity, ImageIndex, IndexedImage
from tlkit.data.images import DECODING, Image, inspect_image
from tlkit.parts.source import Sample
from tlkit.utils.formatting import printable

#: Files that are inspected before the index learns of them, and of these, those that a thread takes at once:
#: to ask for their sizes and times, and to read them.
TOGETHER, ASKED, CHUNK = 5000, 250, 16


def inspect_images(
    samples: Sequence[Sample], *, threads: int, tick: Callable[[int], object] = lambda _: None
) -> tuple[list[Image], list[tuple[str, str]]]:
    """Hashes the content of every sample's file, and checks that it can be decoded.

    Files that have not changed since they were inspected are not read again; see `tlkit.data.image_index`.

    Args:
        samples: the samples to read.
        threads: how many files are read at a time.
        tick: called after some files with their number.

    Returns:
        The images that can be decoded, in the samples' order, and (id, reason) of each of the others.
    """
    images: list[Image] = []
    rejected: list[tuple[str, str]] = []
    index = ImageIndex(f"{DECODING} {PIL.__version__}")
    with ThreadPool(threads) as pool:
        for start in range(0, len(samples), TOGETHER):
            together = samples[start : start + TOGETHER]
            for sample, result in zip(together, _inspect_together(together, index, pool, tick), strict=True):
                if isinstance(result, Image):
                    images.append(result)
                else:
                    rejected.append((printable(sample.id), result))
    return images, rejected


def _inspect_together(
    samples: Sequence[Sample], index: ImageIndex, pool: ThreadPool, tick: Callable[[int], object]
) -> list[Image | str]:
    """Returns the image of each sample, or the reason why it cannot be used; the index learns what is new."""
    began = time.time_ns()
    identities = pool.map(FileIdentity.of, [sample.path for sample in samples], ASKED)
    files = [(sample.path, identity) for sample, identity in zip(samples, identities, strict=True)]
    recorded = [_recorded(sample, identity) for sample, (_, identity) in zip(samples, files, strict=True)]
    unknown = [number for number, image in enumerate(recorded) if image is None]
    indexed = dict(zip(unknown, index.find([files[number] for number in unknown]), strict=True))
    entries = [
        (image or indexed[number]) if printable(sample.id) == sample.id else None
        for number, (sample, image) in enumerate(zip(samples, recorded, strict=True))
    ]
    changed = [number for number, image in enumerate(entries) if image is None]
    tick(len(samples) - len(changed))
    inspected: dict[int, Image | str] = {}
    results = pool.imap(inspect_image, [samples[number] for number in changed], CHUNK)
    for number, result in zip(changed, results, strict=True):
        inspected[number] = result
        tick(1)
    index.add(
        [
            (*files[number], IndexedImage(image.sha256, image.width, image.height))
            for number, image in inspected.items()
            if isinstance(image, Image)
        ],
        began,
    )
    return [
        Image(sample, *entry) if entry else inspected[number]
        for number, (sample, entry) in enumerate(zip(samples, entries, strict=True))
    ]


def _recorded(sample: Sample, identity: FileIdentity | None) -> IndexedImage | None:
    """Returns what the source knows of a file, if the file has not changed since."""
    if sample.recorded is None or identity is None:
        return None
    size, mtime, sha256, width, height = sample.recorded
    unchanged = (size, mtime) == (identity.size, identity.mtime)
    return IndexedImage(sha256, width, height) if unchanged else None
