"""Downloads archives of images: resumed after an interruption, verified, and unpacked safely."""

from __future__ import annotations

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
from tlkit.utils.hashing import file_sha256

#: Seconds after which a silent connection counts as broken: while it is made, and between two chunks.
TIMEOUT = (10, 30)
#: How many attempts in a row may make no progress; the pause between them doubles each time.
ATTEMPTS = 4
FIRST_PAUSE = 1.0
#: Bytes that are written at a time: at most this many are lost when a connection breaks.
CHUNK_SIZE = 2**16
#: Archives may unpack to this many times their own size: photos hardly shrink when they are packed.
MAX_GROWTH = 10
MAX_FILES = 1_000_000

Tick = Callable[[int], object]


def download(archive: Download, folder: Path, tick: Tick) -> Path:
    """Downloads a file into `folder`, or resumes an earlier download of it.

    An unfinished download is in a file named ``….part`` until it is complete and its checksum is verified.

    Args:
        archive: the file to download.
        folder: where to store it; a file that is there already is not downloaded again.
        tick: called with the number of bytes that have arrived.

    Returns:
        The file.

    Raises:
        FetchError: the file cannot be reached, is interrupted again and again, is not the expected file, or
            cannot be written.
    """
    file = folder / f"{archive.sha256[:8]}-{PurePosixPath(archive.url).name}"
    part = file.with_name(f"{file.name}.part")
    try:
        if file.is_file():
            if file_sha256(file) == archive.sha256:
                tick(archive.size)
                return file
            file.unlink()  # damaged since it was downloaded
        folder.mkdir(parents=True, exist_ok=True)
        _check_disk_space(archive.size - _size(part), folder)
        tick(_size(part))
        _complete(archive, part, tick)
        _check_sha256(archive, part)
        part.rename(file)
    except OSError as error:  # requests' errors are OSErrors too, but have become FetchErrors by now
        raise FetchError(f"{folder} cannot be written: {error.strerror or error}") from error
    return file


def _complete(archive: Download, part: Path, tick: Tick) -> None:
    """Downloads what is missing, over as many connections as necessary."""
    reason, failures, furthest = why_unreachable(archive.url), 0, _size(part)
    while reason is None and _size(part) < archive.size:
        try:
            _resume(archive, part, tick)
            message = "the connection closed too soon"
        except requests.RequestException as error:
            message = _describe(error)
        failures = 0 if _size(part) > furthest else failures + 1
        furthest = max(furthest, _size(part))
        if failures == ATTEMPTS:
            reason = message
        elif failures:
            time.sleep(FIRST_PAUSE * 2 ** (failures - 1))
    if reason is not None:
        have = _size(part)
        hint = f"; {have:,} of {archive.size:,} bytes are downloaded: the same command resumes there"
        raise FetchError(f"{archive.url} could not be reached: {reason}{hint if have else ''}")


def _resume(archive: Download, part: Path, tick: Tick) -> None:
    """Appends what is missing; starts again if the server does not support ranges."""
    have = _size(part)
    headers = {"Range": f"bytes={have}-", "Accept-Encoding": "identity"}
    with requests.get(archive.url, headers=headers, stream=True, timeout=TIMEOUT) as response:
        response.raise_for_status()
        resumed = response.status_code == requests.codes.partial_content
        start = have if resumed else 0
        # a login page, or another file, must not be taken for a part of this one
        length = str(archive.size - start)
        if response.headers.get("Content-Length", length) != length or (
            resumed and not response.headers.get("Content-Range", "").startswith(f"bytes {start}-")
        ):
            raise FetchError(f"{archive.url} is not the expected file of {archive.size:,} bytes")
        if not resumed:
            tick(-have)
        with part.open("ab" if resumed else "wb") as file:
            for chunk in response.iter_content(CHUNK_SIZE):
                if file.tell() + len(chunk) > archive.size:
                    raise FetchError(f"{archive.url} is larger than the expected {archive.size:,} bytes")
                file.write(chunk)
                tick(len(chunk))


def _check_sha256(archive: Download, part: Path) -> None:
    """Removes a complete download, and raises, if it has another checksum."""
    sha256 = file_sha256(part)
    if sha256 != archive.sha256:
        part.unlink()
        raise FetchError(
            f"{archive.url} is not the expected file: its sha256 is {sha256}, not {archive.sha256}. It was "
            "deleted. Try again; if the checksum still differs, the file has changed at its source"
        )


def unpack(archives: Sequence[tuple[Path, str]], root: Path, tick: Tick) -> None:
    """Unpacks zip files into a folder that is empty or does not exist yet: all of them, or nothing.

    Args:
        archives: each file, and the folder to unpack it into, relative to `root`.
        root: the folder; it may be a link or the root of a mounted disk.
        tick: called with the number of bytes that have been unpacked.

    Raises:
        FetchError: an archive is not a valid zip file, a path in it leads out of the folder, it would unpack
            to far more than its own size, or the folder is not empty or cannot be written.
    """
    unfinished = root / ".unfinished"
    try:
        root.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(unfinished, ignore_errors=True)
        if existing := next(root.iterdir(), None):
            raise FetchError(
                f"{root} must be empty to unpack images into, but has {existing.name}: move it away"
            )
        unfinished.mkdir()
        for archive, subfolder in archives:
            _unpack_archive(archive, unfinished / subfolder, tick)
        for path in list(unfinished.iterdir()):
            path.rename(root / path.name)
    except OSError as error:
        raise FetchError(f"{root} cannot be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _unpack_archive(archive: Path, folder: Path, tick: Tick) -> None:
    try:
        with zipfile.ZipFile(archive) as opened:
            members = opened.infolist()
            _check_members(archive, members)
            folder.mkdir(parents=True, exist_ok=True)
            _check_disk_space(sum(member.file_size for member in members), folder)
            for member in members:
                # reads no more than the declared size, which has been checked
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


def _check_members(archive: Path, members: Sequence[zipfile.ZipInfo]) -> None:
    """Raises if an archive contains links or paths out of its folder, or grows too much when unpacked."""
    for member in members:
        path = PureWindowsPath(member.filename)  # knows both kinds of slashes, and drives
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


def _check_disk_space(size: int, folder: Path) -> None:
    free = shutil.disk_usage(folder).free
    if size > free:
        raise FetchError(f"{folder}: {size:,} bytes are needed, but only {free:,} are free")


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _describe(error: requests.RequestException) -> str:
    response = error.response
    return f"{response.status_code} {response.reason}" if response is not None else str(error)
