"""From values to one self-contained HTML file."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from tlkit.errors import ReportError
from tlkit.utils.formatting import format_bytes, format_duration, format_gain, format_p_value


def render(template: str, **values: Any) -> str:
    """A page of a template; whatever comes from a run is escaped."""
    environment = Environment(
        loader=PackageLoader("tlkit.reporting"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        duration=format_duration,
        p_value=format_p_value,
        size=format_bytes,
        number=lambda value: f"{value:,}",
        part=lambda value: "–" if value is None else f"{value:.3f}",
        percent=lambda value: f"{100 * value:.1f}%",
    )
    environment.globals["gain"] = format_gain
    return environment.get_template(template).render(**values)


@contextmanager
def replaced_when_complete(page: Path) -> Iterator[Path]:
    """A folder to make a page's files in, which replace what is there when all are made.

    The page itself must be written there under its own name, its pictures under ``pictures/``.

    Raises:
        ReportError: they cannot be written.
    """
    unfinished = page.with_name(f"{page.name}.{uuid.uuid4().hex[:8]}.unfinished")
    try:
        unfinished.mkdir(parents=True)
        yield unfinished
        pictures = page.parent / "pictures"
        shutil.rmtree(pictures, ignore_errors=True)
        (unfinished / "pictures").mkdir(exist_ok=True)
        (unfinished / "pictures").rename(pictures)
        (unfinished / page.name).replace(page)
    except OSError as error:
        raise ReportError(f"{page} cannot be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
