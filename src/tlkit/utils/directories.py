"""The folders that tlkit keeps on a machine between runs."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs


def cache_folder() -> Path:
    """Returns the folder for data that can be recreated: ``TLKIT_CACHE``, or the user's cache folder."""
    return (
        Path(os.environ.get("TLKIT_CACHE") or platformdirs.user_cache_path("tlkit")).expanduser().absolute()
    )


def generated_folder() -> Path:
    """Returns the folder of images that sources generate, with a folder per source."""
    return cache_folder() / "made"


def download_folder() -> Path:
    """Returns the folder of archives that are being downloaded."""
    return cache_folder() / "downloads"
