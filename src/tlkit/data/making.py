"""Files of a source that makes its images itself."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from tlkit.components import Sample, Source
from tlkit.errors import DataError, PluginError


def not_yet_made(source: Source) -> list[Sample]:
    """The images whose files are still to be made; none where the source makes none."""
    if source.make is None:
        return []
    return [sample for sample in (*source.samples, *source.unlabelled) if not sample.path.is_file()]


def make(source: Source, samples: Sequence[Sample], tick: Callable[[int], object]) -> None:
    """Makes the files of `samples`; one that is interrupted leaves whole files or none.

    Raises:
        PluginError: the source failed to make one.
        DataError: a file cannot be written.
    """
    assert source.make is not None  # not_yet_made has seen to it
    for sample in samples:
        try:
            content = source.make(sample)
        except Exception as error:
            raise PluginError(
                f"the source failed to make image {sample.id!r}: {type(error).__name__}: {error}"
            ) from error
        _write(sample.path, content)
        tick(1)


def _write(path: Path, content: bytes) -> None:
    unfinished = path.with_name(f"{uuid.uuid4().hex}.unfinished")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished.write_bytes(content)
        unfinished.replace(path)
    except OSError as error:
        with suppress(OSError):
            unfinished.unlink()
        raise DataError(
            f"images cannot be written to {path.parent}: {error.strerror or error}. Free some space there, "
            "or name another folder in TLKIT_CACHE or data.root"
        ) from error
