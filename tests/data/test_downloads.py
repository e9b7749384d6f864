"""Downloads from a real HTTP server on this machine, which can be told to misbehave."""

from __future__ import annotations

import socket
import stat
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from servers import Server, serving

from tlkit.data.downloads import CHUNK_SIZE, download, unpack
from tlkit.errors import FetchError
from tlkit.parts.source import Download

CONTENT = np.random.default_rng(1).bytes(3_000_000)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr("tlkit.data.downloads.FIRST_PAUSE", 0.01)
    with serving(CONTENT) as running:
        yield running


def test_a_complete_file_is_downloaded_once(server: Server, tmp_path: Path) -> None:
    ticks: list[int] = []
    first = download(server.download(), tmp_path / "downloads", ticks.append)
    assert first.read_bytes() == CONTENT
    assert sum(ticks) == len(CONTENT)
    again = download(server.download(), tmp_path / "downloads", ticks.append)
    assert (again, len(server.asked)) == (first, 1)
    assert list((tmp_path / "downloads").iterdir()) == [first]


def test_a_complete_file_that_was_damaged_is_downloaded_again(server: Server, tmp_path: Path) -> None:
    first = download(server.download(), tmp_path, lambda _: None)
    first.write_bytes(CONTENT[:-1] + bytes([CONTENT[-1] ^ 1]))
    assert download(server.download(), tmp_path, lambda _: None).read_bytes() == CONTENT
    assert len(server.asked) == 2


def test_a_broken_connection_is_resumed_where_it_broke(server: Server, tmp_path: Path) -> None:
    server.break_after = [1_200_000, 500_000]
    ticks: list[int] = []
    assert download(server.download(), tmp_path, ticks.append).read_bytes() == CONTENT
    starts = [int((asked or "").removeprefix("bytes=").rstrip("-")) for asked in server.asked]
    assert starts[0] == 0
    assert 1_200_000 - CHUNK_SIZE < starts[1] <= 1_200_000
    assert starts[1] + 500_000 - CHUNK_SIZE < starts[2] <= starts[1] + 500_000
    assert sum(ticks) == len(CONTENT)


def test_an_interrupted_command_resumes_where_it_stopped(server: Server, tmp_path: Path) -> None:
    class Stopped(Exception):
        pass

    def stop(count: int) -> None:
        if count:
            raise Stopped

    with pytest.raises(Stopped):
        download(server.download(), tmp_path, stop)
    (part,) = tmp_path.iterdir()
    size = part.stat().st_size
    assert 0 < size < len(CONTENT)
    ticks: list[int] = []
    assert download(server.download(), tmp_path, ticks.append).read_bytes() == CONTENT
    assert server.asked[-1] == f"bytes={size}-"
    assert ticks[0] == size


def test_a_server_without_ranges_starts_again(server: Server, tmp_path: Path) -> None:
    server.ranges, server.break_after = False, [1_000_000]
    ticks: list[int] = []
    assert download(server.download(), tmp_path, ticks.append).read_bytes() == CONTENT
    assert sum(ticks) == len(CONTENT)


def test_a_server_that_always_breaks_off_is_given_up_and_nothing_is_lost(
    server: Server, tmp_path: Path
) -> None:
    server.break_after = [1_000_000, 0, 0, 0, 0, 0]
    with pytest.raises(
        FetchError, match=r"could not be reached.*9\d\d,\d\d\d of 3,000,000 bytes are downloaded"
    ):
        download(server.download(), tmp_path, lambda _: None)
    (part,) = tmp_path.iterdir()
    size = part.stat().st_size
    server.break_after = []
    assert download(server.download(), tmp_path, lambda _: None).read_bytes() == CONTENT
    assert server.asked[-1] == f"bytes={size}-"


def test_a_file_with_another_checksum_is_deleted(server: Server, tmp_path: Path) -> None:
    other = bytes(reversed(CONTENT))
    with pytest.raises(FetchError, match=r"is not the expected file.*deleted"):
        download(server.download(other), tmp_path, lambda _: None)
    assert list(tmp_path.iterdir()) == []


def test_a_file_of_another_size_is_not_accepted(server: Server, tmp_path: Path) -> None:
    with pytest.raises(FetchError, match="not the expected file of 1,000 bytes"):
        download(server.download(CONTENT[:1000]), tmp_path, lambda _: None)
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) == 0


def test_a_login_page_does_not_damage_the_download(server: Server, tmp_path: Path) -> None:
    server.break_after = [1_000_000, 0, 0, 0, 0]
    with pytest.raises(FetchError, match="could not be reached"):
        download(server.download(), tmp_path, lambda _: None)
    (part,) = tmp_path.iterdir()
    before = part.read_bytes()
    server.portal = b"<html>Please log in</html>"
    with pytest.raises(FetchError, match="not the expected file of 3,000,000 bytes"):
        download(server.download(), tmp_path, lambda _: None)
    assert part.read_bytes() == before
    server.portal = b""
    assert download(server.download(), tmp_path, lambda _: None).read_bytes() == CONTENT


def test_hosts_that_do_not_answer(server: Server, tmp_path: Path) -> None:
    server.content = b""
    unknown = Download(server.url.replace("127.0.0.1", "localhost.invalid") + "/a.zip", 10, "0" * 64)
    began = time.monotonic()
    with pytest.raises(FetchError, match=r"localhost\.invalid.*could not be reached"):
        download(unknown, tmp_path, lambda _: None)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        closed = Download(f"http://127.0.0.1:{free.getsockname()[1]}/a.zip", 10, "0" * 64)
    with pytest.raises(FetchError, match="Connection refused"):
        download(closed, tmp_path, lambda _: None)
    assert time.monotonic() - began < 10


def test_a_file_larger_than_the_disk(server: Server, tmp_path: Path) -> None:
    huge = Download(f"{server.url}/a.zip", 10**18, "0" * 64)
    with pytest.raises(FetchError, match=r"1,000,000,000,000,000,000 bytes are needed"):
        download(huge, tmp_path, lambda _: None)
    assert server.asked == []


def pack(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def test_unpacking_into_a_linked_folder_and_several_archives(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "train").symlink_to(tmp_path / "disk")
    first = pack(tmp_path / "a.zip", {"1.jpg": b"one"})
    second = pack(tmp_path / "b.zip", {"2.jpg": b"two"})
    unpack([(first, "."), (second, "more")], tmp_path / "train", lambda _: None)
    assert (tmp_path / "disk" / "1.jpg").read_bytes() == b"one"
    assert (tmp_path / "disk" / "more" / "2.jpg").read_bytes() == b"two"
    with pytest.raises(FetchError, match="move it away"):
        unpack([(first, ".")], tmp_path / "train", lambda _: None)


def test_one_bad_archive_leaves_nothing_of_the_others(tmp_path: Path) -> None:
    good = pack(tmp_path / "a.zip", {"1.jpg": b"one"})
    bad = pack(tmp_path / "b.zip", {"../2.jpg": b"two"})
    with pytest.raises(FetchError, match="leads out"):
        unpack([(good, "."), (bad, ".")], tmp_path / "train", lambda _: None)
    assert list((tmp_path / "train").iterdir()) == []


def test_unpacking(tmp_path: Path) -> None:
    photo = CONTENT[:20_000]
    archive = pack(tmp_path / "a.zip", {"PetImages/Cat/0.jpg": photo, "readme[1].txt": b"words"})
    ticks: list[int] = []
    unpack([(archive, ".")], tmp_path / "train", ticks.append)
    assert (tmp_path / "train" / "PetImages" / "Cat" / "0.jpg").read_bytes() == photo
    assert sum(ticks) == len(photo) + 5
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.zip", "train"]


@pytest.mark.parametrize("name", ["../escaped.jpg", "a/../../escaped.jpg", "/escaped.jpg", "C:\\escaped.jpg"])
def test_a_path_that_leads_out(tmp_path: Path, name: str) -> None:
    archive = pack(tmp_path / "a.zip", {"good.jpg": b"fine", name: b"not fine"})
    with pytest.raises(FetchError, match="leads out of its folder"):
        unpack([(archive, ".")], tmp_path / "inside" / "train", lambda _: None)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a.zip", "inside", "train"]


def test_a_link(tmp_path: Path) -> None:
    link = zipfile.ZipInfo("link")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(link, "/etc")
    with pytest.raises(FetchError, match="is a link"):
        unpack([(tmp_path / "a.zip", ".")], tmp_path / "train", lambda _: None)
    assert not list((tmp_path / "train").iterdir())


def test_a_bomb(tmp_path: Path) -> None:
    archive = pack(tmp_path / "a.zip", {"zeros.jpg": bytes(50_000_000)})
    assert archive.stat().st_size < 100_000
    with pytest.raises(FetchError, match=r"50,000,000 bytes, more than 10 times its own size"):
        unpack([(archive, ".")], tmp_path / "train", lambda _: None)
    assert not list((tmp_path / "train").iterdir())


def test_a_bomb_that_lies_about_its_size(tmp_path: Path) -> None:
    archive = pack(tmp_path / "a.zip", {"zeros.jpg": bytes(50_000_000)})
    true_size, declared_size = ((50_000_000).to_bytes(4, "little"), (1000).to_bytes(4, "little"))
    packed = archive.read_bytes().replace(true_size, declared_size)
    archive.write_bytes(packed)
    with pytest.raises(FetchError, match="cannot be unpacked"):
        unpack([(archive, ".")], tmp_path / "train", lambda _: None)
    assert not list((tmp_path / "train").iterdir())


def test_a_file_that_is_not_a_zip_file(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(CONTENT)
    with pytest.raises(FetchError, match=r"a\.zip cannot be unpacked: File is not a zip file"):
        unpack([(tmp_path / "a.zip", ".")], tmp_path / "train", lambda _: None)
