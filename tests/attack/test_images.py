"""Images and folders from strangers: decoded as they are, or reported with a reason; never silently wrong."""

from __future__ import annotations

import csv
import ctypes
import io
import json
import os
import shutil
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import processes
import pytest
from commands import command
from PIL import Image as PillowImage
from processes import Started

import tlkit
from tlkit.data.images import UnreadableImage, decode, upright
from tlkit.data.inspection import inspect_images
from tlkit.data.views import View, ViewReader
from tlkit.errors import DataError, ExportError
from tlkit.inference.export_onnx import export_onnx
from tlkit.inference.pixels import read_pixels
from tlkit.inference.predictor import Predictor
from tlkit.parts.preprocess import Preprocess
from tlkit.parts.source import Sample

#: Options of a `tlkit fit` that takes seconds.
QUICKLY = ("--backbone", "vgg16-quarter", "--quality", "fast", "--folds", 2, "--no-report")
linux_only = pytest.mark.skipif(sys.platform != "linux", reason="needs devices and permissions of Linux")
JPEGS: dict[str, dict[str, Any]] = {
    "baseline": {},
    "optimised": {"optimize": True},
    "restarts": {"restart_marker_rows": 1},
    "odd restarts": {"restart_marker_blocks": 7},
    "full chroma": {"subsampling": 0},
    "progressive": {"progressive": True},
    "progressive restarts": {"progressive": True, "restart_marker_rows": 1},
}


def encoded(image: PillowImage.Image, kind: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def refused(content: bytes, folder: Path) -> str:
    """Returns the reason why an image is refused, in prediction and in a run alike."""
    with pytest.raises(UnreadableImage) as caught:
        decode(content)
    path = folder / "refused.img"
    path.write_bytes(content)
    ((_, reason),) = inspect_images([Sample("refused.img", path, 0)], threads=1)[1]
    assert reason == str(caught.value)
    return reason


def usable(content: bytes, folder: Path) -> bool:
    decode(content)
    path = folder / "usable.img"
    path.write_bytes(content)
    return len(inspect_images([Sample("usable.img", path, 0)], threads=1)[0]) == 1


@pytest.fixture(scope="module")
def photo(photos: Path) -> PillowImage.Image:
    return PillowImage.open(photos / "cat.1.jpg").convert("RGB")


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("options", JPEGS.values(), ids=JPEGS)
def test_a_jpeg_with_a_tenth_of_its_data(
    options: dict[str, Any], mode: str, photo: PillowImage.Image, tmp_path: Path
) -> None:
    content = encoded(photo.convert(mode), "JPEG", **options)
    assert usable(content, tmp_path)
    header = content.index(b"\xff\xda") + 14
    for fraction in (0.1, 0.5):
        cut = content[: header + int((len(content) - header) * fraction)] + b"\xff\xd9"
        assert "truncated" in refused(cut, tmp_path)


def test_a_jpeg_cut_between_two_restarts(photo: PillowImage.Image, tmp_path: Path) -> None:
    content = encoded(photo, "JPEG", restart_marker_rows=1)
    assert "truncated" in refused(content[: content.index(b"\xff\xd4")] + b"\xff\xd9", tmp_path)


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("options", JPEGS.values(), ids=JPEGS)
def test_an_image_that_is_grey_is_complete(options: dict[str, Any], mode: str, tmp_path: Path) -> None:
    grey = PillowImage.new(mode, (100, 70), 128 if mode == "L" else (127,) * len(mode))
    for image in (grey, PillowImage.new("RGB", (100, 70), (128,) * 3)):
        assert usable(encoded(image, "JPEG", **options), tmp_path)


def test_a_header_that_claims_more_than_there_are_data_for(photo: PillowImage.Image, tmp_path: Path) -> None:
    for options in JPEGS.values():
        content = bytearray(encoded(photo, "JPEG", **options))
        frame = content.index(b"\xff\xc2" if "progressive" in options else b"\xff\xc0")
        content[frame + 5 : frame + 9] = struct.pack(">HH", 3000, 3000)
        assert "truncated" in refused(bytes(content), tmp_path)


def test_no_real_photo_is_refused(real_photos: Path) -> None:
    paths = sorted((real_photos.parents[1]).rglob("*.jpg"))
    _, rejected = inspect_images([Sample(path.name, path) for path in paths], threads=2)
    assert (len(paths) > 1000, rejected) == (True, [])


def test_a_png_with_a_wrong_checksum(photo: PillowImage.Image, tmp_path: Path) -> None:
    content = bytearray(encoded(photo, "PNG"))
    assert usable(bytes(content), tmp_path)
    content[content.rindex(b"IEND") - 5] ^= 1  # the last byte of the checksum before it
    assert refused(bytes(content), tmp_path) == "damaged: the checksum of its chunk IDAT is wrong"


def test_numbers_without_a_known_range(tmp_path: Path) -> None:
    ramp = np.linspace(0, 1, 400, dtype=np.float32).reshape(20, 20)
    reason = refused(encoded(PillowImage.fromarray(ramp), "TIFF"), tmp_path)
    assert reason == "its pixels are floating-point numbers, which have no fixed range"
    large = PillowImage.fromarray((ramp * 1e6).astype(np.int32))
    assert refused(encoded(large, "TIFF"), tmp_path) == "its greys, 0 to 1000000, are not within 0 to 65535"
    assert usable(encoded(PillowImage.fromarray((ramp * 65535).astype(np.int32)), "TIFF"), tmp_path)


@pytest.mark.parametrize("size", [(1, 10_000), (999_999, 1), (3000, 1), (2, 201)])
def test_thin_images(size: tuple[int, int], tmp_path: Path) -> None:
    image = PillowImage.new("RGB", size)
    reason = refused(encoded(image, "PNG"), tmp_path)
    assert reason == f"of {size[0]}x{size[1]} pixels: one side is more than 100 times the other"
    with pytest.raises(UnreadableImage, match="more than 100 times"):
        upright(image)
    assert usable(encoded(PillowImage.new("RGB", (2, 200)), "PNG"), tmp_path)


def closed(path: Path) -> PillowImage.Image:
    image = PillowImage.open(path)
    image.close()
    return image


def test_a_stream_goes_on_behind_whatever_cannot_be_read(
    fitted: Path, by_class: Path, tmp_path: Path
) -> None:
    good = by_class / "cat" / "1.jpg"
    (tmp_path / "cut.jpg").write_bytes(good.read_bytes()[:3000])
    broken: list[Any] = [
        tmp_path / "a\0b.jpg",
        tmp_path / "cut.jpg",
        PillowImage.open(io.BytesIO((tmp_path / "cut.jpg").read_bytes())),
        closed(good),
        np.zeros((0, 5, 3), np.uint8),
        np.zeros((5, 0), np.uint8),
        PillowImage.new("RGB", (0, 0)),
        PillowImage.new("F", (5, 5)),
        PillowImage.new("RGB", (3000, 1)),
        np.zeros((1, 5000, 3), np.uint8),
        b"bytes",
    ]
    images = [item for image in broken for item in (image, good)]
    predictions = list(tlkit.load(fitted).stream(images))
    assert [bool(prediction.error) for prediction in predictions] == [True, False] * len(broken)


class Interrupting:
    """A step of preprocessing during which the user presses Ctrl+C."""

    def __call__(self, image: object) -> None:
        raise KeyboardInterrupt


def test_an_interruption_is_no_unreadable_image() -> None:
    with pytest.raises(KeyboardInterrupt):
        read_pixels(np.zeros((5, 5), np.uint8), Interrupting())  # type: ignore[arg-type]


def test_an_image_that_resizing_leaves_without_pixels(fitted: Path, tmp_path: Path) -> None:
    path = tmp_path / "thin.png"
    PillowImage.new("RGB", (100, 1)).save(path)
    pad = Preprocess(size=32, resize="pad")
    predictor = tlkit.load(fitted)
    small = Predictor(predictor.module, pad, predictor.classes)
    (prediction,) = small.stream([path])
    assert prediction.error
    (image,), _ = inspect_images([Sample("thin.png", path)], threads=1)
    with pytest.raises(DataError, match=r"thin\.png cannot be resized to 32 pixels"):
        ViewReader().get(image, [View(pad)], remember=False)


#: Photos of each class in folders that commands are run on.
FEW = 10


def copy_few(by_class: Path, folder: Path) -> Path:
    """Copies the first photos of each class."""
    for kind in ("cat", "dog"):
        (folder / kind).mkdir(parents=True)
        for number in range(1, FEW + 1):
            shutil.copyfile(by_class / kind / f"{number}.jpg", folder / kind / f"{number}.jpg")
    return folder


@pytest.fixture
def endless(by_class: Path, tmp_path: Path) -> Iterator[Path]:
    """Photos in a folder per class, with links to a pipe and to devices among them."""
    folder = copy_few(by_class, tmp_path / "endless")
    os.mkfifo(tmp_path / "pipe")
    for name, target in (("pipe", tmp_path / "pipe"), ("random", "/dev/urandom"), ("kernel", "/proc/kmsg")):
        (folder / "cat" / f"{name}.jpg").symlink_to(target)
    yield folder
    (tmp_path / "pipe").unlink()


@linux_only
def test_pipes_and_devices_are_refused_at_once(fitted: Path, endless: Path, tmp_path: Path) -> None:
    began = time.monotonic()
    predicted = command("predict", fitted, endless, "--json")
    assert predicted.returncode == 1
    rows = map(json.loads, predicted.stdout.splitlines())
    errors = {Path(row["path"]).stem: row["error"] for row in rows if row["error"]}
    assert set(errors) == {"pipe", "random", "kernel"}
    assert errors["pipe"] == errors["random"] == "it is not a regular file"
    evaluated = command("evaluate", fitted, endless)
    assert evaluated.returncode == 2
    assert all(f"{name}.jpg: " in evaluated.stderr for name in errors)
    ran = command("fit", endless, *QUICKLY, "--out", tmp_path / "run")
    assert ran.returncode == 0, ran.stderr
    assert {Path(name).stem for name, _ in left_out(tmp_path / "run")} == set(errors)
    assert time.monotonic() - began < 300  # a pipe is waited for without an end


def left_out(run: Path) -> set[tuple[str, str]]:
    """Returns the name and the reason of each image that a run leaves out."""
    plan = json.loads((run / "plan.json").read_text(encoding="utf-8"))
    return {(name, reason) for name, reason in plan["data"]["rejected"]}


def run_unprivileged(*arguments: object) -> None:
    """Runs a command without root's privilege to read everything; the tests may be run by root."""
    libc = ctypes.CDLL(None)
    header, sets = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()  # version 3, this process
    assert libc.capget(header, sets) == 0
    sets[0] &= ~0b110  # CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH, out of the effective set
    assert libc.capset(header, sets) == 0
    processes.tlkit(*arguments)


@pytest.fixture
def forbidden(by_class: Path, tmp_path: Path) -> Iterator[Path]:
    """Photos in a folder per class, with a folder below that may not be read."""
    folder = copy_few(by_class, tmp_path / "forbidden")
    private = folder / "dog" / "private"
    private.mkdir()
    shutil.copyfile(folder / "dog" / "1.jpg", private / "1.jpg")
    private.chmod(0)
    yield folder
    private.chmod(0o755)


@linux_only
def test_a_folder_that_may_not_be_read_is_reported(fitted: Path, forbidden: Path) -> None:
    done = Started(run_unprivileged, "predict", fitted, forbidden, "--json").wait()
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(row["path"], row["error"]) for row in rows if row["error"]] == [
        (str(forbidden / "dog" / "private"), "Permission denied")
    ]
    assert (done.returncode, len(rows)) == (1, 2 * FEW + 1)


@linux_only
@pytest.mark.parametrize("level", ["class", "below"])
def test_labelled_folders_that_may_not_be_read(
    level: str, fitted: Path, forbidden: Path, tmp_path: Path
) -> None:
    folder = {"class": forbidden / "dog", "below": forbidden / "dog" / "private"}[level]
    mode = folder.stat().st_mode
    folder.chmod(0)
    evaluated = Started(run_unprivileged, "evaluate", fitted, forbidden).wait()
    folder.chmod(mode)
    assert evaluated.returncode == 2, evaluated.stderr
    assert f"{folder} cannot be read: Permission denied" in evaluated.stderr


def test_folders_behind_links_are_searched_once(fitted: Path, by_class: Path, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    (folder / "linked").symlink_to(by_class / "cat")
    (folder / "back").symlink_to(folder)
    done = command("predict", fitted, folder, "--json")
    assert (done.returncode, len(done.stdout.splitlines())) == (0, 40)


#: Names of files that text cannot hold as they are.
NAMES = [b"not-utf8-\xff.jpg", b"return-\r.jpg", b"line-\n.jpg", b"escape-\x1b[2J.jpg", b'=1+1,".jpg']


@pytest.fixture
def oddly_named(by_class: Path, tmp_path: Path) -> Path:
    """Photos in a folder per class, some with names that text cannot hold."""
    folder = copy_few(by_class, tmp_path / "odd")
    for name in NAMES:
        shutil.copyfile(folder / "cat" / "1.jpg", os.path.join(os.fsencode(folder / "cat"), name))  # noqa: PTH118
    return folder


@linux_only
@pytest.mark.parametrize("output", ["table", "json", "csv"])
def test_odd_names_are_printed(output: str, fitted: Path, oddly_named: Path) -> None:
    options = [] if output == "table" else [f"--{output}"]
    started = Started(processes.tlkit, "predict", fitted, oddly_named / "cat", *options)
    done = started.wait()
    assert done.returncode == 0, done.stderr
    printed = started.stdout.read_bytes().decode()
    expected = {os.fsdecode(name) for name in NAMES}
    if output == "table":
        assert "\x1b" not in printed
        assert len(printed.splitlines()) == FEW + len(NAMES)
        assert "not-utf8-\\udcff.jpg" in printed
    elif output == "json":
        names = {Path(json.loads(text)["path"]).name for text in printed.split("\n") if text}
        assert expected < names
    else:
        rows = list(csv.reader(io.StringIO(printed, newline="")))
        assert {len(row) for row in rows} == {6}
        assert {name.replace("\udcff", "\\udcff") for name in expected} < {Path(row[0]).name for row in rows}


@linux_only
def test_odd_names_are_read_from_a_list(fitted: Path, oddly_named: Path) -> None:
    path = os.path.join(os.fsencode(oddly_named / "cat"), NAMES[0])  # noqa: PTH118
    line = [sys.executable, "-m", "tlkit", "predict", str(fitted), "-", "--json"]
    environment = {**os.environ, "PYTHONIOENCODING": "utf-8:strict"}
    done = subprocess.run(line, input=path, capture_output=True, check=False, timeout=100, env=environment)
    assert done.returncode == 0, done.stderr
    assert os.fsencode(json.loads(done.stdout)["path"]) == path


@linux_only
def test_odd_names_are_unusable_in_a_run(oddly_named: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    done = command("fit", oddly_named, *QUICKLY, "--out", run)
    assert done.returncode == 0, done.stderr
    reason = "its name is not UTF-8, or holds control characters: rename it"
    assert left_out(run) == {
        (f"cat/{name}", reason)
        for name in ("not-utf8-\\udcff.jpg", "return-\\r.jpg", "line-\\n.jpg", "escape-\\x1b[2J.jpg")
    }


@linux_only
@pytest.mark.parametrize("name", [b"ca\xfft", b"ca\rt"])
def test_a_class_with_an_odd_name(name: bytes, oddly_named: Path, tmp_path: Path) -> None:
    (oddly_named / "dog").rename(oddly_named / os.fsdecode(name))
    done = command("fit", oddly_named, *QUICKLY, "--out", tmp_path / "run")
    assert done.returncode == 2
    assert "names of classes must be UTF-8, without control characters" in done.stderr


def mutants(count: int, seed: int, timeout: float) -> dict[str, Any]:
    line = [sys.executable, str(Path(__file__).parents[1] / "image_mutants.py"), str(count), str(seed)]
    done = subprocess.run(line, capture_output=True, text=True, check=False, timeout=timeout)
    assert done.returncode == 0, done.stderr[-2000:]
    outcome: dict[str, Any] = json.loads(done.stdout)
    return outcome


@pytest.mark.parametrize("count", [800, pytest.param(30_000, marks=pytest.mark.slow)])
def test_any_damage_leaves_an_image_or_a_reason(count: int) -> None:
    outcome = mutants(count, seed=count, timeout=300 + count / 10)
    assert outcome["wrong"] == []
    assert outcome["decoded"] + outcome["refused"] == count
    assert min(outcome["decoded"], outcome["refused"]) > count / 10
    assert outcome["slowest"] < 10
    assert outcome["memory"] < 1e9


def test_an_export_is_not_checked_on_an_image_that_cannot_be_read(fitted: Path, tmp_path: Path) -> None:
    (tmp_path / "cut.jpg").write_bytes(b"\xff\xd8\xff\xe0")
    model = fitted / "phases" / "fine-tune" / "model"
    with pytest.raises(ExportError, match=r"cut\.jpg, to check the export on, cannot be read"):
        export_onnx(model, tmp_path / "out.onnx", [tmp_path / "cut.jpg"])
    assert not (tmp_path / "out.onnx").exists()
