"""Where things are kept between runs."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs


def cache_folder() -> Path:
    """What can be made again: ``TLKIT_CACHE``, or the user's cache folder."""
    return (
        Path(os.environ.get("TLKIT_CACHE") or platformdirs.user_cache_path("tlkit")).expanduser().absolute()
    )


def made_folder() -> Path:
    """Images that sources make themselves, a folder per source."""
    return cache_folder() / "made"


def download_folder() -> Path:
    """Archives that are being fetched."""
    return cache_folder() / "downloads"
