"""Files that have not changed are not read again, and those that have are."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image as PillowImage

from tlkit.data import image_index, images
from tlkit.data.image_index import RACY_NS, FileIdentity, ImageIndex, IndexedImage
from tlkit.data.images import Image
from tlkit.data.inspection import inspect_images
from tlkit.parts.source import Sample

KNOWN = IndexedImage("ab" * 32, 20, 10)


@pytest.fixture
def samples(tmp_path: Path) -> list[Sample]:
    """Three images of one size in bytes."""
    for number in range(3):
        PillowImage.new("RGB", (20, 10), (number, 0, 0)).save(tmp_path / f"{number}.bmp")
    return [Sample(f"{number}.bmp", tmp_path / f"{number}.bmp", 0) for number in range(3)]


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that are read."""
    names: list[str] = []
    read = images._read_bytes

    def record(path: Path) -> bytes:
        names.append(path.name)
        return read(path)

    monkeypatch.setattr(images, "_read_bytes", record)
    return names


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets files that were written just now count as settled."""
    monkeypatch.setattr(image_index, "RACY_NS", 0)


def inspect(samples: list[Sample]) -> list[Image]:
    return inspect_images(samples, threads=2)[0]


@pytest.mark.usefixtures("settled")
def test_unchanged_files_are_not_read_again(samples: list[Sample], reads: list[str]) -> None:
    first = inspect(samples)
    assert sorted(reads) == ["0.bmp", "1.bmp", "2.bmp"]
    assert inspect(samples) == first
    assert len(reads) == 3


@pytest.mark.usefixtures("settled")
def test_a_changed_file_is_read_again_though_its_size_and_time_are_as_before(
    samples: list[Sample], reads: list[str]
) -> None:
    before = inspect(samples)
    reads.clear()
    path = samples[1].path
    status = path.stat()
    PillowImage.new("RGB", (20, 10), (9, 9, 9)).save(path)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert path.stat().st_size == status.st_size
    after = inspect(samples)
    assert reads == ["1.bmp"]
    assert [old == new for old, new in zip(before, after, strict=True)] == [True, False, True]


@pytest.mark.usefixtures("settled")
def test_a_file_in_place_of_another_is_read(samples: list[Sample], reads: list[str]) -> None:
    before = inspect(samples)
    samples[2].path.replace(samples[1].path)
    reads.clear()
    assert inspect(samples[:2])[1].sha256 == before[2].sha256
    assert reads == ["1.bmp"]


def test_a_file_that_was_written_just_now_is_not_remembered(samples: list[Sample], reads: list[str]) -> None:
    inspect(samples)
    inspect(samples)
    assert len(reads) == 6


@pytest.mark.parametrize(("age", "expected"), [(RACY_NS, KNOWN), (RACY_NS - 1, None), (-RACY_NS, None)])
def test_a_file_is_remembered_only_if_a_later_change_will_show(
    tmp_path: Path, age: int, expected: IndexedImage | None
) -> None:
    now, path = time.time_ns(), tmp_path / "cat.jpg"
    identity = FileIdentity(size=5, mtime=now - age, ctime=now - age, inode=7)
    index = ImageIndex("1")
    index.add([(path, identity, KNOWN)], began=now)
    assert index.find([(path, identity)]) == [expected]
    assert ImageIndex("2").find([(path, identity)]) == [None]


@pytest.mark.usefixtures("settled")
def test_an_index_that_is_damaged_is_made_again(samples: list[Sample], reads: list[str], cache: Path) -> None:
    first = inspect(samples)
    (file,) = (cache / "hashes").glob("*.sqlite")
    file.write_bytes(b"not a database" * 1000)
    assert inspect(samples) == first
    assert inspect(samples) == first
    assert len(reads) == 6


@pytest.mark.skipif(os.name == "nt", reason="Windows has other permissions")
def test_other_users_of_a_shared_cache_write_to_it(samples: list[Sample], cache: Path) -> None:
    before = os.umask(0o002)
    try:
        inspect(samples)
    finally:
        os.umask(before)
    (file,) = cache.rglob("*.sqlite")
    assert file.stat().st_mode & 0o777 == 0o664


@pytest.mark.usefixtures("settled")
def test_without_a_place_for_the_index_images_are_read_each_time(
    samples: list[Sample], reads: list[str], cache: Path
) -> None:
    cache.write_text("a file")
    assert inspect(samples) == inspect(samples)
    assert len(reads) == 6


def test_several_processes_write_at_once(tmp_path: Path) -> None:
    script = f"""
import sys
from pathlib import Path
from tlkit.data.image_index import FileIdentity, ImageIndex, IndexedImage
for number in range(20):
    file = Path(f"/images/{{sys.argv[1]}}/{{number}}.jpg"), FileIdentity(1, 2, 3, number)
    ImageIndex("1").add([(*file, IndexedImage({"cd" * 32!r}, 4, 5))], began=2**62)
"""
    processes = [subprocess.Popen([sys.executable, "-c", script, str(number)]) for number in range(2)]
    assert [process.wait() for process in processes] == [0, 0]
    files = [
        (Path(f"/images/{writer}/{number}.jpg"), FileIdentity(1, 2, 3, number))
        for writer in range(2)
        for number in range(20)
    ]
    assert ImageIndex("1").find(files) == [IndexedImage("cd" * 32, 4, 5)] * 40
