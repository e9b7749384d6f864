"""`tlkit fetch` as a user meets it: real photos in an archive, from a real server, and no network at all."""

from __future__ import annotations

import io
import os
import socket
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import tlkit_catsdogs.source
from filelock import FileLock
from servers import Server, serving
from typer.testing import CliRunner

import tlkit
from tlkit.cli.app import app
from tlkit.errors import FetchError

RECIPE = Path(__file__).parents[2] / "examples" / "catsdogs" / "photos.toml"


@pytest.fixture
def archive(photos: Path) -> bytes:
    """Photos as Microsoft packs them, with the other files of that archive, and one that is cut short."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as file:
        for kind in ("cat", "dog"):
            for number in range(1, 8):
                content = (photos / f"{kind}.{number}.jpg").read_bytes()
                file.writestr(f"PetImages/{kind.capitalize()}/{number}.jpg", content)
        file.writestr("PetImages/Dog/8.jpg", content[:1000])
        file.writestr("PetImages/Cat/Thumbs.db", b"not a photo")
        file.writestr("readme[1].txt", b"words")
    return packed.getvalue()


@pytest.fixture
def server(archive: bytes, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    with serving(archive) as running:
        monkeypatch.setattr(tlkit_catsdogs.source, "MICROSOFT", running.download())
        yield running


@pytest.fixture
def changes(tmp_path: Path) -> dict[str, object]:
    return {"data.root": str(tmp_path / "train"), "backbone.weights": "none"}


def test_photos_are_fetched_once_and_corrupt_ones_listed(
    server: Server, changes: dict[str, object], tmp_path: Path, cache: Path
) -> None:
    server.break_after = [20_000]
    done = tlkit.fetch(RECIPE, overrides=changes)
    assert (done.images, done.fetched, done.root) == (15, True, tmp_path / "train")
    ((name, reason),) = done.unreadable
    assert name == "PetImages/Dog/8.jpg"
    assert "truncated" in reason
    assert len(server.asked) == 2
    left = [path.name for path in (cache / "downloads").iterdir()]
    assert left == ["CACHEDIR.TAG"]  # unpacked, so no longer needed
    again = tlkit.fetch(RECIPE, overrides=changes)
    assert (again.images, again.fetched, len(server.asked)) == (15, False, 2)


def test_two_processes_do_not_fetch_at_once(server: Server, changes: dict[str, object], cache: Path) -> None:
    with (
        FileLock(cache / "downloads.lock"),
        pytest.raises(FetchError, match="another process is fetching into"),
    ):
        tlkit.fetch(RECIPE, overrides=changes)
    assert not server.asked
    assert tlkit.fetch(RECIPE, overrides=changes).fetched


def test_fetched_photos_can_be_run(server: Server, changes: dict[str, object], tmp_path: Path) -> None:
    tlkit.fetch(RECIPE, overrides=changes)
    counts = {"data.per_class": {"train": 3, "val": 2, "test": 2}}
    small = {"preprocess.size": 64, "phase.benchmark.preprocess.size": 64, "training.epochs": 1}
    overrides = {**changes, **counts, **small}
    ended = tlkit.run(RECIPE, overrides=overrides, out=tmp_path / "out", phases=["benchmark"])
    assert ended.results.phases[0].test.n == 4
    assert [name for name, _ in ended.results.data.rejected] == ["PetImages/Dog/8.jpg"]


def test_the_command_line_reports_images_and_backbones(server: Server, tmp_path: Path) -> None:
    settings = ["--set", f"data.root={tmp_path / 'train'}", "--set", "backbone.weights=none"]
    result = CliRunner().invoke(app, ["fetch", str(RECIPE), *settings])
    assert result.exit_code == 0
    assert f"images: 15 in {tmp_path / 'train'}" in result.stdout
    assert "cannot be read: PetImages/Dog/8.jpg" in result.stdout
    assert "backbones that are ready: convnet3, vgg16.tv_in1k" in result.stdout


def test_a_source_that_generates_its_images_needs_no_download() -> None:
    done = tlkit.fetch(RECIPE.parent)
    assert (done.root, done.fetched, done.images) == (None, False, 8300)


def test_run_names_the_command_that_fetches_the_photos(changes: dict[str, object], tmp_path: Path) -> None:
    with pytest.raises(tlkit.TlkitError, match=r"data\.root: the images are not in .*tlkit fetch .*\.toml"):
        tlkit.run(RECIPE, overrides=changes, out=tmp_path / "out")
    assert not (tmp_path / "train").exists()


def test_a_wrong_recipe_fetches_nothing(server: Server, changes: dict[str, object]) -> None:
    with pytest.raises(tlkit.TlkitError, match=r"no source is called 'catdogs'.*did you mean 'catsdogs'"):
        tlkit.fetch(RECIPE, overrides={**changes, "data.source": "catdogs"})
    assert server.asked == []


@pytest.mark.parametrize(
    ("name", "message"), [("../../escaped.jpg", "leads out of its folder"), ("ok.jpg", "times its own size")]
)
def test_a_harmful_archive_is_not_unpacked(
    name: str, message: str, changes: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr(name, bytes(20_000_000))
    with serving(packed.getvalue()) as running:
        monkeypatch.setattr(tlkit_catsdogs.source, "MICROSOFT", running.download())
        with pytest.raises(tlkit.TlkitError, match=message):
            tlkit.fetch(RECIPE, overrides=changes)
    assert not list((tmp_path / "train").iterdir())
    assert not list(tmp_path.rglob("escaped.jpg"))


def test_without_a_network_it_fails_within_seconds(tmp_path: Path) -> None:
    """A proxy that accepts every connection and never answers: the slowest way to have no network.

    It must take less than 10 seconds: measured against a fetch that downloads nothing, since machines differ.
    """

    def fetch(*arguments: str, **environment: str) -> tuple[subprocess.CompletedProcess[str], float]:
        began = time.monotonic()
        command = [sys.executable, "-m", "tlkit", "fetch", *arguments]
        settings = {**os.environ, "HF_HOME": str(tmp_path), **environment}
        done = subprocess.run(command, env=settings, capture_output=True, text=True, check=False)
        return done, time.monotonic() - began

    nothing, without_waiting = fetch(str(RECIPE.parent))
    assert nothing.returncode == 0
    with socket.create_server(("127.0.0.1", 0), backlog=20) as silent:
        proxy = f"http://127.0.0.1:{silent.getsockname()[1]}"
        setting = f"data.root={tmp_path / 'train'}"
        done, spent = fetch(str(RECIPE), "--set", setting, http_proxy=proxy, https_proxy=proxy)
    assert done.returncode == 2
    assert "download.microsoft.com" in done.stderr and "huggingface.co" in done.stderr
    assert "--set data.root=PATH" in done.stderr and "--set backbone.weights=PATH.safetensors" in done.stderr
    assert "Traceback" not in done.stderr
    assert spent < without_waiting + 8
