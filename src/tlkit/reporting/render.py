"""Renders pages from templates, and writes them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tlkit.errors import ReportError
from tlkit.reporting.pictures import Album
from tlkit.utils.atomic_write import DAY, atomic_write, remove_unfinished
from tlkit.utils.formatting import format_bytes, format_duration, format_p_value, plural


def render(template: str, content: object) -> str:
    """Renders a template, in which `content` is called ``page``; text that comes from a run is escaped."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("tlkit.reporting"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        duration=format_duration,
        number=lambda value: f"{value:,}",
        p_value=format_p_value,
        percent=lambda value: f"{100 * value:.1f}%",
        plural=plural,
        score=lambda value: "–" if value is None else f"{value:.3f}",
        size=format_bytes,
    )
    return environment.get_template(template).render(page=content)


@dataclass(frozen=True)
class UnfinishedPage:
    """A page that is being made.

    Attributes:
        file: the page's temporary path.
        album: where its pictures go.
    """

    file: Path
    album: Album


@contextmanager
def replaced_when_complete(page: Path) -> Iterator[UnfinishedPage]:
    """Yields where to write a page and its pictures, which replace existing ones when the block ends.

    If the block raises, what was there before stays.

    Raises:
        ReportError: the page or a picture cannot be written.
    """
    try:
        remove_unfinished(page.parent, older_than=DAY)
        # they can be made again, so they need not wait for the disk
        with (
            atomic_write(page, durable=False) as file,
            atomic_write(page.parent / "pictures", durable=False) as pictures,
        ):
            pictures.mkdir()
            yield UnfinishedPage(file, Album(pictures))
    except OSError as error:
        raise ReportError(f"{page} cannot be written: {error.strerror or error}") from error
