"""The folders that tlkit keeps on a machine between runs."""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from contextlib import suppress
from pathlib import Path

import platformdirs

from tlkit.errors import TlkitError
from tlkit.utils.regular_files import read_regular

TAG = "CACHEDIR.TAG"
TAG_CONTENT = "Signature: 8a477f597d28d172789f06886806bc55\n# Made by tlkit, which can make it again.\n"
#: How an address begins, a mistyped one such as ``s3:/bucket`` as well; a drive of Windows has one letter.
ADDRESS = re.compile("[a-z][a-z0-9+.-]+:", re.IGNORECASE)


def cache_folder() -> Path:
    """Returns the folder for data that can be recreated: ``TLKIT_CACHE``, or the user's cache folder.

    Where ``TLKIT_CACHE`` is the address of a store, it is a folder for copies of what that store has.

    Raises:
        TlkitError: ``TLKIT_CACHE`` begins with the home of a user who does not exist.
    """
    if (address := shared_store()) is not None:
        return (
            platformdirs.user_cache_path("tlkit-shared") / hashlib.sha256(address.encode()).hexdigest()[:12]
        )
    folder = Path(os.environ.get("TLKIT_CACHE") or platformdirs.user_cache_path("tlkit"))
    try:
        return folder.expanduser().absolute()
    except RuntimeError as error:  # there is no user of that name
        raise TlkitError(f"TLKIT_CACHE: {str(folder)!r} cannot be resolved: {error}") from error


def shared_store() -> str | None:
    """Returns the address in ``TLKIT_CACHE`` of a feature store outside this machine, such as ``s3://bucket``."""
    named = os.environ.get("TLKIT_CACHE", "")
    return named if ADDRESS.match(named) else None


def generated_folder() -> Path:
    """Returns the folder of images that sources generate, with a folder per source."""
    return own_folder(cache_folder() / "made")


def download_folder() -> Path:
    """Returns the folder of archives that are being downloaded."""
    return own_folder(cache_folder() / "downloads")


def index_folder() -> Path:
    """Returns the folder of the hashes of image files."""
    return own_folder(cache_folder() / "hashes")


def own_folder(folder: Path) -> Path:
    """Makes a folder if it does not exist, marked as tlkit's own; returns it.

    The mark is a CACHEDIR.TAG (https://bford.info/cachedir), which also keeps it out of backups. A folder
    that exists is somebody's, and is not marked.
    """
    if not folder.exists():
        # whoever writes to it reports that it cannot be written, and another process may have made it
        with suppress(OSError):
            folder.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
                marked = Path(temporary) / folder.name
                marked.mkdir()
                (marked / TAG).write_text(TAG_CONTENT, encoding="utf-8")
                marked.rename(folder)
    return folder


def is_own(folder: Path) -> bool:
    """Returns whether tlkit made a folder, so that it may remove it."""
    try:
        return read_regular(folder / TAG, 1000).decode() == TAG_CONTENT
    except (OSError, UnicodeDecodeError):
        return False
