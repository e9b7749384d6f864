"""Generates the files of a source that makes its images itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tlkit.errors import DataError, PluginError
from tlkit.parts.source import Sample, Source
from tlkit.utils.atomic_write import atomic_write


def missing_images(source: Source) -> list[Sample]:
    """Returns the images whose files must still be generated; none if the source generates none."""
    if source.make is None:
        return []
    return [sample for sample in (*source.samples, *source.unlabelled) if not sample.path.is_file()]


def generate(source: Source, samples: Sequence[Sample], tick: Callable[[int], object]) -> None:
    """Generates the files of `samples`; an interruption leaves whole files only.

    Raises:
        PluginError: the source failed to make one.
        DataError: a file cannot be written.
    """
    assert source.make is not None  # missing_images returned some
    for sample in samples:
        try:
            content = source.make(sample)
        except Exception as error:
            raise PluginError(
                f"the source failed to make image {sample.id!r}: {type(error).__name__}: {error}"
            ) from error
        try:
            with atomic_write(sample.path, durable=False) as temporary:
                temporary.write_bytes(content)
        except OSError as error:
            raise DataError(
                f"images cannot be written to {sample.path.parent}: {error.strerror or error}. Free some "
                "space there, or name another folder in TLKIT_CACHE or data.root"
            ) from error
        tick(1)
