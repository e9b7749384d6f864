"""Fetching an archive of images: resumed after a break, checked, and unpacked without trust."""

from __future__ import annotations

import shutil
import stat
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import pooch
import requests

from tlkit.components import Download
from tlkit.errors import FetchError
from tlkit.reaching import unreachable

#: Seconds until a connection that says nothing counts as broken: to be made, and between two pieces.
TIMEOUT = (10, 30)
#: How often in a row a broken connection is taken up again without one byte gained.
ATTEMPTS = 3
#: Bytes that are written at a time: at most so many are lost when a connection breaks.
PIECE = 2**16
#: An archive may unpack to this many times its own size: photos hardly shrink when they are packed.
MAX_GROWTH = 10
MAX_FILES = 1_000_000

Tick = Callable[[int], object]


def download(item: Download, folder: Path, tick: Tick) -> Path:
    """Fetches a file into `folder`, or goes on with what an earlier attempt left there.

    Args:
        item: what to fetch.
        folder: where it goes; what is there already and sound is not fetched again.
        tick: called with the number of bytes that came.

    Returns:
        The file, whose checksum is right.

    Raises:
        FetchError: it cannot be reached, breaks off again and again, is not what it should be, or
            cannot be written.
    """
    _must_fit(item.bytes, folder)
    pooch.get_logger().setLevel("WARNING")
    name = PurePosixPath(item.url).name
    try:
        found = pooch.retrieve(
            item.url,
            known_hash=f"sha256:{item.sha256}",
            fname=f"{item.sha256[:8]}-{name}",
            path=folder,
            downloader=_Resuming(item, tick),
        )
    except ValueError as error:  # pooch's, on a wrong checksum; it has removed the file
        raise FetchError(
            f"{item.url} is not the file that was expected: its sha256 is not {item.sha256}. It was "
            "thrown away: try again, and if it stays so, the file was changed at its source"
        ) from error
    except OSError as error:
        raise FetchError(f"{folder} cannot be written: {error.strerror or error}") from error
    return Path(found)


class _Resuming:
    """pooch's downloader, with HTTP ranges: what came before a break is kept beside the file."""

    def __init__(self, item: Download, tick: Tick) -> None:
        self._item = item
        self._tick = tick

    def __call__(self, url: str, output_file: str, _: Any) -> None:
        part = Path(output_file).with_name(f"{self._item.sha256[:8]}.part")
        failures, reason = 0, unreachable(url)
        self._tick(_size(part))
        while reason is None and _size(part) < self._item.bytes and failures < ATTEMPTS:
            before = _size(part)
            try:
                self._go_on(url, part)
            except requests.RequestException as error:
                failures = 0 if _size(part) > before else failures + 1
                if failures == ATTEMPTS:
                    reason = _say(error)
            else:
                failures += _size(part) <= before
        if reason is not None or _size(part) < self._item.bytes:
            kept = f"; {_size(part):,} of {self._item.bytes:,} bytes are kept" if _size(part) else ""
            raise FetchError(f"{url} could not be reached: {reason or 'it ends too soon'}{kept}")
        part.replace(output_file)

    def _go_on(self, url: str, part: Path) -> None:
        """Appends what is missing; starts again where the server knows no ranges."""
        have = _size(part)
        headers = {"Range": f"bytes={have}-", "Accept-Encoding": "identity"}
        with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT) as answer:
            answer.raise_for_status()
            resumed = answer.status_code == requests.codes.partial_content
            if not resumed:
                self._tick(-have)
            with part.open("ab" if resumed else "wb") as file:
                for piece in answer.iter_content(PIECE):
                    file.write(piece)
                    self._tick(len(piece))
                    if file.tell() > self._item.bytes:
                        file.truncate(0)
                        raise FetchError(
                            f"{url} is larger than the {self._item.bytes:,} bytes that were expected"
                        )


def unpack(archive: Path, folder: Path, tick: Tick) -> None:
    """Unpacks a zip file into a folder that is not there yet, or empty; all of it or nothing.

    Raises:
        FetchError: it is no sound zip file, a path in it leads out of the folder, it would unpack to
            far more than its own size, or it cannot be written.
    """
    unfinished = folder.with_name(f"{folder.name}.unfinished")
    try:
        with zipfile.ZipFile(archive) as opened:
            members = opened.infolist()
            _must_be_harmless(archive, members)
            _must_fit(sum(member.file_size for member in members), folder.parent)
            shutil.rmtree(unfinished, ignore_errors=True)
            unfinished.mkdir(parents=True)
            for member in members:
                # reads no more than the size that was declared, and checked above
                opened.extract(member, unfinished)
                tick(member.file_size)
        if folder.is_dir():
            folder.rmdir()
        unfinished.rename(folder)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise FetchError(f"{archive} cannot be unpacked: {error}") from error
    except OSError as error:
        raise FetchError(f"{folder} cannot be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


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
    there = next(parent for parent in (folder, *folder.parents) if parent.is_dir())
    free = shutil.disk_usage(there).free
    if size > free:
        raise FetchError(f"{folder}: {size:,} bytes are needed and {free:,} are free")


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _say(error: requests.RequestException) -> str:
    response = getattr(error, "response", None)
    return f"{response.status_code} {response.reason}" if response is not None else str(error)
