"""Tar shards: images beside their labels, read where they lie and nowhere else."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import tlkit
from tlkit.errors import DataError
from tlkit.parts.source import Source
from tlkit.plugins.loader import load_registry

REGISTRY = load_registry()


def write(file: Path, members: dict[str, bytes]) -> Path:
    """Writes a shard."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(file, "w") as archive:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return file


def read(root: Path, **options: Any) -> Source:
    source: Source = REGISTRY.make("source", "webdataset", options, root)
    return source


@pytest.fixture
def shards(by_class: Path, tmp_path: Path) -> Path:
    """The folder of a shard for training and one for testing, with ten photos of each class each."""
    root = tmp_path / "shards"
    for split, first in (("train", 1), ("test", 11)):
        members = {}
        for kind in ("cat", "dog"):
            for number in range(first, first + 10):
                key = f"{kind}/{number:03}"
                members[f"{key}.jpg"] = (by_class / kind / f"{number}.jpg").read_bytes()
                members[f"{key}.cls"] = kind.encode()
        write(root / f"{split}-000.tar", members)
    return root


def test_a_run_reads_the_images_of_shards(shards: Path, by_class: Path, tmp_path: Path, cache: Path) -> None:
    source = read(shards)
    assert source.classes == ("cat", "dog") and len(source.samples) == 40 and source.make is not None
    first = source.samples[0]
    assert (first.id, first.label, first.split) == ("test-000.tar/cat/011.jpg", 0, "test")
    assert source.make(first) == (by_class / "cat" / "11.jpg").read_bytes()
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(
        f'name = "shards"\ndata = {{ source = "webdataset", root = "{shards}" }}\n'
        'backbone = { name = "vgg16-quarter" }\n[[phase]]\nname = "probe"\n'
    )
    with pytest.raises(DataError, match=r"'webdataset' has no image files in .*name this source itself"):
        tlkit.manifest(recipe, out=tmp_path / "images.parquet")
    assert not list(cache.rglob("*.jpg"))
    plan = tlkit.run(recipe, plan_only=True, out=tmp_path / "out").plan
    assert plan is not None and (plan.data.train + plan.data.val, plan.data.test) == (20, 20)
    made = list(cache.rglob("*.jpg"))
    assert len(made) == 40 and all(path.is_relative_to(cache / "made" / "webdataset") for path in made)


def test_nothing_is_written_where_a_shard_says(tmp_path: Path) -> None:
    names = ("../../escaped", "/tmp/absolute", "x/../../y")
    members = {f"{name}.png": name.encode() for name in names}
    write(tmp_path / "a.tar", members | {f"{name}.cls": str(row).encode() for row, name in enumerate(names)})
    with tarfile.open(tmp_path / "a.tar", "a") as archive:
        link = tarfile.TarInfo("link.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    source = read(tmp_path)
    assert len(source.samples) == 3 and source.make is not None
    for sample, name in zip(source.samples, names, strict=True):
        assert sample.path.is_relative_to(tlkit.generated_folder() / "webdataset")
        assert ".." not in sample.path.parts
        assert source.make(sample) == name.encode()


def test_labels_in_json(tmp_path: Path) -> None:
    members = {"1.png": b"", "1.json": b'{"breed": 7}', "2.png": b"", "2.json": b'{"breed": 10}'}
    write(tmp_path / "val" / "0.tar", members)
    source = read(tmp_path, shards="*/*.tar", label="json", label_key="breed")
    assert source.classes == ("7", "10") and {sample.split for sample in source.samples} == {"val"}
    drawn = read(tmp_path, shards="*/*.tar", label="json", label_key="breed", own_splits=False)
    assert {sample.split for sample in drawn.samples} == {None}


@pytest.mark.parametrize(
    ("members", "problem"),
    [
        ({"1.png": b""}, r"0.tar/1: no file .cls with its label"),
        ({"1.cls": b"cat"}, "0.tar/1: 0 images, where one belongs"),
        ({"cat.0.png": b"", "cat.0.cls": b"cat"}, r"0.tar/cat: 0 images, .* its first dot"),
        ({"1.png": b"", "1.jpg": b"", "1.cls": b"cat"}, "0.tar/1: 2 images"),
        ({"1.png": b"", "1.cls": b"c\nt"}, r"'c\\nt' is no label"),
        ({"1.png": b"", "1.cls": b"\xff"}, "0.tar/1: 'utf-8' codec"),
        ({"1.png": b"", "1.cls": b"c" * 100_001}, "a label of 100,001 bytes"),
        ({"1.png": b"", "1.cls": b"cat"}, "1 classes in 1 shards: at least two"),
    ],
)
def test_samples_that_cannot_be_used_are_named(
    tmp_path: Path, members: dict[str, bytes], problem: str
) -> None:
    write(tmp_path / "0.tar", members)
    with pytest.raises(DataError, match=problem):
        read(tmp_path)


def flipped(shard: bytes) -> bytes:
    return shard[:1024] + bytes([shard[1024] ^ 1]) + shard[1025:]  # in the second header


@pytest.mark.parametrize(
    "damage",
    [flipped, lambda shard: shard[:2048], lambda shard: shard[:2100], lambda shard: shard + shard],
    ids=["a bit", "cut between members", "cut in a header", "two shards joined"],
)
def test_a_damaged_shard_is_refused_as_a_whole(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    members = {}
    for number in range(4):
        members |= {f"{number}.png": b"png", f"{number}.cls": str(number % 2).encode()}
    file = write(tmp_path / "0.tar", members)
    assert len(read(tmp_path).samples) == 4
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(DataError, match=r"0.tar cannot be read as an uncompressed tar file: .*at byte"):
        read(tmp_path)


def test_a_second_label_is_refused(tmp_path: Path) -> None:
    file = write(tmp_path / "0.tar", {"1.png": b"", "1.cls": b"cat", "2.png": b"", "2.cls": b"dog"})
    with tarfile.open(file, "a") as archive:
        entry = tarfile.TarInfo("1.cls")
        entry.size = 3
        archive.addfile(entry, io.BytesIO(b"dog"))
    with pytest.raises(DataError, match=r"0.tar/1: 2 files .cls with its label"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("kind", "size"), [(tarfile.REGTYPE, -512), (tarfile.REGTYPE, -1), (tarfile.GNUTYPE_LONGNAME, 3 * 10**9)]
)
def test_headers_of_a_stranger_are_not_believed(tmp_path: Path, kind: bytes, size: int) -> None:
    entry = tarfile.TarInfo("1.png")
    entry.type = kind
    header = bytearray(entry.tobuf(tarfile.GNU_FORMAT))
    header[124:136] = tarfile.itn(size, 12, tarfile.GNU_FORMAT)
    header[148:156] = b"%06o\0 " % tarfile.calc_chksums(bytes(header))[0]
    (tmp_path / "0.tar").write_bytes(bytes(header) + bytes(10_240))
    with pytest.raises(DataError, match="a header says that"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("train000.tar", "train"),
        ("validation-00.tar", "val"),
        ("test_1.tar", "test"),
        ("val/0.tar", "val"),
        ("training-1.tar", None),
        ("0-train.tar", None),
    ],
)
def test_splits_are_at_the_beginning_of_names(tmp_path: Path, name: str, split: str | None) -> None:
    write(tmp_path / name, {"1.png": b"", "1.cls": b"a", "2.png": b"", "2.cls": b"b"})
    assert {sample.split for sample in read(tmp_path, shards="**/*.tar").samples} == {split}


@pytest.mark.parametrize("pattern", ["", "/x/*.tar"])
def test_a_pattern_that_is_none_is_refused(tmp_path: Path, pattern: str) -> None:
    with pytest.raises(DataError, match="is not a pattern of paths"):
        read(tmp_path, shards=pattern)


def test_files_that_are_no_shards_are_refused(shards: Path, tmp_path: Path) -> None:
    file = shards / "test-000.tar"
    source = read(shards)
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 4])
    assert source.make is not None
    with pytest.raises(OSError, match="ends before byte"):
        source.make([sample for sample in source.samples if sample.split == "test"][-1])
    with pytest.raises(DataError, match=r"cannot be read as an uncompressed tar file|no file"):
        read(shards)
    file.write_bytes(b"text" * 1000)
    with pytest.raises(DataError, match=r"test-000.tar cannot be read as an uncompressed tar file"):
        read(shards)
    with pytest.raises(DataError, match=r"has no files '\*.tgz'"):
        read(shards, shards="*.tgz")
    with pytest.raises(DataError, match="does not exist"):
        read(tmp_path / "nowhere")
