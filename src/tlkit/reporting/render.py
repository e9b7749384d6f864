"""Renders pages from templates, and writes them."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tlkit.errors import ReportError
from tlkit.reporting.pictures import Album
from tlkit.utils.atomic_write import DAY, atomic_write, remove_unfinished
from tlkit.utils.formatting import format_bytes, format_duration, format_p_value, plural


def render(template: str, content: object) -> str:
    """Renders a page's template, in which `content` is called ``page``; text from a run is escaped."""
    return _render(template, content, autoescape=True)


def render_text(template: str, content: object) -> str:
    """Renders a Markdown template; text from a run is escaped where the template says ``| markdown``."""
    return _render(template, content, autoescape=False)


def _render(template: str, content: object, *, autoescape: bool) -> str:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("tlkit.reporting"),
        autoescape=autoescape,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        duration=format_duration,
        markdown=_escape_markdown,
        number=lambda value: f"{value:,}",
        p_value=format_p_value,
        percent=lambda value: f"{100 * value:.1f}%",
        plural=plural,
        score=lambda value: "–" if value is None else f"{value:.3f}",
        size=format_bytes,
    )
    script = (Path(__file__).parent / "templates" / "page.js").read_text(encoding="utf-8")
    # by its hash, a page's Content-Security-Policy allows its own script and no other
    script_hash = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return environment.get_template(template).render(page=content, script=script, script_hash=script_hash)


def _escape_markdown(text: str) -> str:
    """Returns text on one line that Markdown shows as it is."""
    return re.sub(r"([\\`*_{}\[\]<>#|~&])", r"\\\1", " ".join(text.split()))


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
