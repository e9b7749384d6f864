"""Reads a page that a report wrote."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path


class Page(HTMLParser):
    """The content of a page: ids of sections, attributes of pictures, addresses, and text."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.sections: list[str] = []
        self.pictures: list[dict[str, str | None]] = []
        self.addresses: list[str] = []
        self.text = ""
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Collects sections, pictures and addresses."""
        attributes = dict(attrs)
        if tag == "section":
            self.sections.append(attributes["id"] or "")
        if tag == "img":
            self.pictures.append(attributes)
        self.addresses += [attributes[key] or "" for key in ("src", "href") if key in attributes]

    def handle_data(self, data: str) -> None:
        """Collects text."""
        self.text += data
