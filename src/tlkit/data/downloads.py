"""Fetching archives of images: resumed after a break, checked, and unpacked without trust."""

from __future__ import annotations

import hashlib
import lzma
import shutil
import stat
import time
import zipfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath

import requests

from tlkit.errors import FetchError
from tlkit.parts.source import Download
from tlkit.utils.connectivity import why_unreachable

#: Seconds until a connection that says nothing counts as broken: to be made, and between two pieces.
TIMEOUT = (10, 30)
#: How often a broken connection is taken up again without coming further; the pause doubles each time.
ATTEMPTS = 4
FIRST_PAUSE = 1.0
#: Bytes that are written at a time: at most so many are lost when a connection breaks.
PIECE = 2**16
#: Archives may unpack to this many times their own size: photos hardly shrink when they are packed.
MAX_GROWTH = 10
MAX_FILES = 1_000_000

Tick = Callable[[int], object]


def download(item: Download, folder: Path, tick: Tick) -> Path:
    """Fetches a file into `folder`, or goes on with what an earlier attempt left there.

    What has come is in a file named ``….part`` until all of it is there and its checksum is right.

    Args:
        item: what to fetch.
        folder: where it goes; what is there already is not fetched again.
        tick: called with the number of bytes that came.

    Returns:
        The file.

    Raises:
        FetchError: it cannot be reached, breaks off again and again, is not what it should be, or
            cannot be written.
    """
    file = folder / f"{item.sha256[:8]}-{PurePosixPath(item.url).name}"
    if file.is_file():
        tick(item.size)
        return file
    part = file.with_name(f"{file.name}.part")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _must_fit(item.size - _size(part), folder)
        tick(_size(part))
        _complete(item, part, tick)
        with part.open("rb") as content:
            found = hashlib.file_digest(content, "sha256").hexdigest()
        if found != item.sha256:
            part.unlink()
            raise FetchError(
                f"{item.url} is not the file that was expected: its sha256 is {found}, not {item.sha256}. It "
                "was thrown away: try again, and if it stays so, the file was changed at its source"
            )
        part.rename(file)
    except OSError as error:  # not the network's: those have become a FetchError
        raise FetchError(f"{folder} cannot be written: {error.strerror or error}") from error
    return file


def _complete(item: Download, part: Path, tick: Tick) -> None:
    """Fetches what is missing, over as many connections as it takes."""
    reason, failures, furthest = why_unreachable(item.url), 0, _size(part)
    while reason is None and _size(part) < item.size:
        try:
            _go_on(item, part, tick)
            said = "it ends too soon"
        except requests.RequestException as error:
            said = _say(error)
        failures = 0 if _size(part) > furthest else failures + 1
        furthest = max(furthest, _size(part))
        if failures == ATTEMPTS:
            reason = said
        elif failures:
            time.sleep(FIRST_PAUSE * 2 ** (failures - 1))
    if reason is not None:
        have = _size(part)
        kept = f"; {have:,} of {item.size:,} bytes are kept, and the same command goes on" if have else ""
        raise FetchError(f"{item.url} could not be reached: {reason}{kept}")


def _go_on(item: Download, part: Path, tick: Tick) -> None:
    """Appends what is missing; starts again where the server knows no ranges."""
    have = _size(part)
    headers = {"Range": f"bytes={have}-", "Accept-Encoding": "identity"}
    with requests.get(item.url, headers=headers, stream=True, timeout=TIMEOUT) as answer:
        answer.raise_for_status()
        resumed = answer.status_code == requests.codes.partial_content
        start = have if resumed else 0
        # a page to log in to, or another file, must not be taken for a piece of this one
        expected = str(item.size - start)
        if answer.headers.get("Content-Length", expected) != expected or (
            resumed and not answer.headers.get("Content-Range", "").startswith(f"bytes {start}-")
        ):
            raise FetchError(f"{item.url} is not the file of {item.size:,} bytes that was expected")
        if not resumed:
            tick(-have)
        with part.open("ab" if resumed else "wb") as file:
            for piece in answer.iter_content(PIECE):
                if file.tell() + len(piece) > item.size:
                    raise FetchError(f"{item.url} is larger than the {item.size:,} bytes that were expected")
                file.write(piece)
                tick(len(piece))


def unpack(archives: Sequence[tuple[Path, str]], root: Path, tick: Tick) -> None:
    """Unpacks zip files into a folder that is not there yet, or empty; all of them or nothing.

    Args:
        archives: each file, and where below `root` it goes.
        root: the folder; it may be a link or a mounted disk.
        tick: called with the number of bytes that were unpacked.

    Raises:
        FetchError: one is no sound zip file, a path in it leads out of the folder, it would unpack to far
            more than its own size, the folder is not empty, or cannot be written.
    """
    unfinished = root / ".unfinished"
    try:
        root.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(unfinished, ignore_errors=True)
        if found := next(root.iterdir(), None):
            raise FetchError(f"{root} is to hold what is fetched, and holds {found.name}: move it away")
        unfinished.mkdir()
        for archive, below in archives:
            _unpack_one(archive, unfinished / below, tick)
        for path in list(unfinished.iterdir()):
            path.rename(root / path.name)
    except OSError as error:
        raise FetchError(f"{root} cannot be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _unpack_one(archive: Path, folder: Path, tick: Tick) -> None:
    try:
        with zipfile.ZipFile(archive) as opened:
            members = opened.infolist()
            _must_be_harmless(archive, members)
            folder.mkdir(parents=True, exist_ok=True)
            _must_fit(sum(member.file_size for member in members), folder)
            for member in members:
                # reads no more than the size that was declared, and checked above
                opened.extract(member, folder)
                tick(member.file_size)
    except (
        zipfile.BadZipFile,
        zlib.error,
        lzma.LZMAError,
        EOFError,
        NotImplementedError,
        RuntimeError,
    ) as error:
        raise FetchError(f"{archive} cannot be unpacked: {error}") from error


def _must_be_harmless(archive: Path, members: list[zipfile.ZipInfo]) -> None:
    for member in members:
        path = PureWindowsPath(member.filename)  # knows both kinds of slash, and drives
        if path.anchor or ".." in path.parts:
            raise FetchError(f"{archive} was not unpacked: {member.filename!r} in it leads out of its folder")
        if stat.S_ISLNK(member.external_attr >> 16):
            raise FetchError(f"{archive} was not unpacked: {member.filename!r} in it is a link")
    total = sum(member.file_size for member in members)
    if total > MAX_GROWTH * archive.stat().st_size or len(members) > MAX_FILES:
        raise FetchError(
            f"{archive} was not unpacked: its {len(members):,} files would take {total:,} bytes, more than "
            f"{MAX_GROWTH} times its own size"
        )


def _must_fit(size: int, folder: Path) -> None:
    free = shutil.disk_usage(folder).free
    if size > free:
        raise FetchError(f"{folder}: {size:,} bytes are needed and {free:,} are free")


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _say(error: requests.RequestException) -> str:
    response = error.response
    return f"{response.status_code} {response.reason}" if response is not None else str(error)
