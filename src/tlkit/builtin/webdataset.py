"""The built-in source of tar shards, in the form of webdataset.

A shard holds for each image a file with the image and one with its label, which have the same name up to the
first dot: ``0001.jpg`` and ``0001.cls``. Members are read where they lie; nothing is unpacked under the name
that a shard gives it.
"""

from __future__ import annotations

import json
import os
import re
import tarfile
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, BinaryIO, Self

from tlkit.builtin.sources import SPLIT_NAMES, natural
from tlkit.errors import DataError
from tlkit.parts.source import IMAGE_SUFFIXES, Sample, Source, SplitName
from tlkit.plugins.hookspecs import hookimpl
from tlkit.utils.directories import generated_folder
from tlkit.utils.formatting import bulleted, printable
from tlkit.utils.hashing import digest
from tlkit.utils.regular_files import check_regular

if TYPE_CHECKING:
    from tlkit.plugins.registry import Register

#: Labels are short, and images have no more bytes than files of images may have.
MAX_LABEL, MAX_IMAGE = 100_000, 500_000_000
#: A header that describes the next one, such as a long name, has at most so many bytes.
MAX_HEADER = 2**20
#: More bytes than this after the end of a shard are not looked at: tar fills up to 10 kB.
MAX_PADDING = 2**20
HEADERS = (
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
)
#: Names of splits at the beginning of a shard's name or folder: a word, or one with a number behind it.
SPLIT_WORD = re.compile(r"[a-z]+", re.IGNORECASE)
#: How many problems an error lists.
PROBLEMS_SHOWN = 10


@hookimpl
def tlkit_sources(register: Register) -> None:
    register("webdataset", webdataset)


@dataclass(frozen=True, slots=True)
class _Member:
    """Where a file lies in a shard: its first byte, and its number of bytes."""

    shard: Path
    start: int
    size: int

    def read(self) -> bytes:
        """Returns its content.

        Raises:
            OSError: the shard is shorter than it was.
        """
        with self.shard.open("rb") as file:
            file.seek(self.start)
            content = file.read(self.size)
        if len(content) < self.size:
            raise OSError(f"{self.shard} ends before byte {self.start + self.size:,}")
        return content


@dataclass(slots=True)
class _Row:
    """An image of a shard, and its label's file."""

    images: list[tuple[str, _Member]] = field(default_factory=list)
    labels: list[_Member] = field(default_factory=list)


class _Entry(tarfile.TarInfo):
    """A member's header; one with an impossible or excessive size is refused before it is read on."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        entry = super().frombuf(buf, encoding, errors)
        if entry.size < 0 or (entry.type in HEADERS and entry.size > MAX_HEADER):
            raise tarfile.ReadError(f"a header says that {entry.size:,} bytes follow")
        return entry


def webdataset(
    root: Path,
    *,
    shards: str = "*.tar",
    label: str = "cls",
    label_key: str = "label",
    own_splits: bool = True,
) -> Source:
    """Lists the images in tar files of the form of webdataset, such as ``0001.jpg`` beside ``0001.cls``.

    Images are copied to tlkit's cache folder when they are first needed. The split of a shard is what its
    name or its folder begins with: ``train-000.tar``, ``val/000.tar``.

    Args:
        root: the folder of the shards.
        shards: a pattern of the shards' paths in it.
        label: the suffix of the files with the labels: the name of the class, or JSON if it is ``json``.
        label_key: the key of the label, where it is in JSON.
        own_splits: use the splits that the shards' names begin with; false: tlkit draws the splits.
    """
    if not root.is_dir():
        raise DataError(f"folder {root} does not exist: name the folder that contains the shards")
    try:
        paths = sorted(root.glob(shards), key=lambda path: natural(path.as_posix()))
    except (ValueError, NotImplementedError, IndexError) as error:
        raise DataError(f"shards: {shards!r} is not a pattern of paths in {root}: {error}") from error
    if not paths:
        raise DataError(f"{root} has no files {shards!r}: name others with the option 'shards'")
    members: dict[Path, _Member] = {}
    labelled: list[tuple[str, Path, str, SplitName | None]] = []
    problems: list[str] = []
    for path in paths:
        split = _split(path.relative_to(root)) if own_splits else None
        folder = generated_folder() / "webdataset" / _identity(path)
        for key, row in _rows(path, label.removeprefix(".")).items():
            name = f"{path.relative_to(root).as_posix()}/{key}"
            try:
                suffix, member = _only_image(row)
                class_name = _label(row, label, label_key)
            except ValueError as error:
                problems.append(f"{printable(name)}: {error}")
                continue
            file = folder / f"{member.start:015}{suffix}"
            members[file] = member
            labelled.append((name + suffix, file, class_name, split))
    if problems:
        raise DataError(bulleted(f"{root}: samples that cannot be used", problems, PROBLEMS_SHOWN))
    classes = tuple(sorted({name for _, _, name, _ in labelled}, key=natural))
    if len(classes) < 2:
        raise DataError(f"{root}: {len(classes)} classes in {len(paths)} shards: at least two are needed")
    labels = {name: index for index, name in enumerate(classes)}
    samples = [Sample(name, file, labels[class_name], split) for name, file, class_name, split in labelled]
    return Source(classes, samples, make=lambda sample: members[sample.path].read())


def _identity(shard: Path) -> str:
    """Returns what tells a shard from others, and from itself after a change."""
    try:
        check_regular(shard)
        status = shard.stat()
    except OSError as error:
        raise DataError(f"{shard} cannot be read: {error.strerror or error}") from error
    return digest(os.fspath(shard.absolute()), status.st_size, status.st_mtime_ns)


def _rows(shard: Path, label: str) -> dict[str, _Row]:
    """Returns the images of a shard by their name up to the first dot."""
    rows: dict[str, _Row] = {}
    try:
        with shard.open("rb") as file, tarfile.TarFile(fileobj=file, tarinfo=_Entry) as archive:
            for entry in archive:
                if entry.issparse():
                    raise tarfile.ReadError(f"{printable(entry.name)} is a sparse file")
                path = PurePosixPath(entry.name)
                stem, _, suffix = path.name.partition(".")
                if not entry.isfile() or not stem:  # folders, links, devices; and hidden files
                    continue
                suffix = f".{suffix.lower()}"
                key = (path.parent / stem).as_posix()
                member = _Member(shard, entry.offset_data, entry.size)
                if suffix == f".{label}":
                    rows.setdefault(key, _Row()).labels.append(member)
                elif suffix in IMAGE_SUFFIXES:
                    rows.setdefault(key, _Row()).images.append((suffix, member))
                elif path.suffix.lower() in IMAGE_SUFFIXES:  # of another kind, or its name has dots in it
                    rows.setdefault(key, _Row())
            _check_end(file, archive.offset)
    except (OSError, tarfile.TarError, UnicodeError, ValueError) as error:
        raise DataError(f"{shard} cannot be read as an uncompressed tar file: {error}") from error
    return rows


def _check_end(file: BinaryIO, offset: int) -> None:
    """Raises tarfile.ReadError unless a shard ends where its members do; tarfile takes damage for the end."""
    file.seek(offset)
    padding = file.read(MAX_PADDING)
    if len(padding) < tarfile.BLOCKSIZE or padding.strip(b"\0") or file.read(1):
        raise tarfile.ReadError(
            f"it is damaged or cut short at byte {offset:,}, or other data follow: make the shard again"
        )


def _only_image(row: _Row) -> tuple[str, _Member]:
    """Returns the image of a row with its suffix; raises ValueError unless there is just one."""
    if len(row.images) != 1:
        raise ValueError(
            f"{len(row.images)} images, where one belongs (a sample's name ends at its first dot)"
        )
    ((suffix, member),) = row.images
    if member.size > MAX_IMAGE:
        raise ValueError(f"an image of {member.size:,} bytes; {MAX_IMAGE:,} are allowed")
    return suffix, member


def _label(row: _Row, suffix: str, key: str) -> str:
    """Returns the name of a row's class; raises ValueError if there is none."""
    if len(row.labels) != 1:
        count = len(row.labels) or "no"
        raise ValueError(f"{count} file{'s' * (count != 'no')} .{suffix.removeprefix('.')} with its label")
    (member,) = row.labels
    if member.size > MAX_LABEL:
        raise ValueError(f"a label of {member.size:,} bytes")
    text = member.read().decode().strip()
    if suffix.endswith("json"):
        try:
            table = json.loads(text)
        except RecursionError as error:
            raise ValueError("its label is nested too deeply") from error
        value = table.get(key) if isinstance(table, dict) else None
        text = str(value) if isinstance(value, str | int) else ""
    if not text or printable(text) != text:
        raise ValueError(f"{text!r} is no label")
    return text


def _split(path: Path) -> SplitName | None:
    """Returns the split that a shard's name or folder begins with, as in ``train-000.tar``."""
    for part in path.parts:
        match = SPLIT_WORD.match(part)
        if match and match[0].casefold() in SPLIT_NAMES:
            return SPLIT_NAMES[match[0].casefold()]
    return None
