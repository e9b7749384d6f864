"""Reading images: every kind of file, and the reasons why one cannot be decoded."""

from __future__ import annotations

import io
import sys
from importlib import metadata
from pathlib import Path

import numpy as np
import PIL
import pytest
from PIL import Image as PillowImage

from tlkit.data import images as images_module
from tlkit.data.images import UnreadableImage, decode, inspect_image, read_image
from tlkit.data.inspection import inspect_images
from tlkit.parts.preprocess import Preprocess
from tlkit.parts.source import Sample

RED = (200, 30, 40)


def encoded(image: PillowImage.Image, kind: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def flat(mode: str, colour: object) -> PillowImage.Image:
    return PillowImage.new(mode, (20, 10), colour)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (encoded(flat("RGB", RED), "PNG"), RED),
        (encoded(flat("L", 99), "PNG"), (99, 99, 99)),
        (encoded(flat("1", 1), "PNG"), (255, 255, 255)),
        (encoded(flat("RGB", RED).quantize(8), "PNG"), RED),
        (encoded(flat("RGB", RED).quantize(8), "GIF"), RED),
        (encoded(flat("RGBA", (*RED, 255)), "PNG"), RED),
        (encoded(flat("RGBA", (*RED, 0)), "PNG"), (255, 255, 255)),
        (encoded(flat("LA", (10, 0)), "PNG"), (255, 255, 255)),
        (encoded(flat("I;16", 30000), "PNG"), (117, 117, 117)),
        (encoded(flat("RGB", RED), "WEBP", lossless=True), RED),
        (encoded(flat("RGB", RED), "BMP"), RED),
        (encoded(flat("RGB", RED), "TIFF"), RED),
    ],
    ids="rgb grey bilevel palette gif opaque transparent grey-transparent 16-bit webp bmp tiff".split(),
)
def test_every_kind_becomes_rgb(content: bytes, expected: tuple[int, int, int]) -> None:
    image = decode(content)
    assert image.mode == "RGB"
    assert image.getpixel((3, 3)) == pytest.approx(expected, abs=1)


def heic(size: tuple[int, int] = (64, 48)) -> bytes:
    pillow_heif = pytest.importorskip("pillow_heif")
    stream = io.BytesIO()
    pillow_heif.from_pillow(PillowImage.new("RGB", size, RED)).save(stream, quality=90)
    return stream.getvalue()


def test_heic(tmp_path: Path) -> None:
    image = decode(heic())
    assert (image.mode, image.size) == ("RGB", (64, 48))
    assert image.getpixel((3, 3)) == pytest.approx(RED, abs=6)
    (tmp_path / "cut.heic").write_bytes(heic()[:-20])
    images, rejected = inspect_images([Sample("cut", tmp_path / "cut.heic")], threads=1)
    assert images == [] and rejected
    # whether a process has read one yet or not
    assert images_module.decoder_versions() == (PIL.__version__, metadata.version("pillow-heif"))


def test_heic_without_the_package_that_decodes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    content = heic()
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    images_module._enable_heic.cache_clear()
    with pytest.raises(UnreadableImage, match=r"pip install 'tlkit\[heif\]'"):
        decode(content)


@pytest.mark.parametrize(
    ("content", "hint"),
    [(b"%PDF-1.7 ...", "a PDF document"), (b'\n<svg xmlns="...">', "an SVG drawing: export it as PNG")],
)
def test_drawings_and_documents_have_a_hint(content: bytes, hint: str) -> None:
    with pytest.raises(UnreadableImage, match=hint):
        decode(content)


def test_the_preview_in_a_raw_file_is_not_taken_for_the_photo(tmp_path: Path) -> None:
    path = tmp_path / "photo.NEF"
    flat("RGB", RED).save(path, "TIFF")
    assert inspect_image(Sample("photo", path)) == "a camera's raw file: export it as JPEG"


def test_cmyk_and_jpeg() -> None:
    cmyk = decode(encoded(flat("RGB", RED).convert("CMYK"), "JPEG", quality=95))
    assert cmyk.getpixel((3, 3)) == pytest.approx(RED, abs=6)


def test_exif_rotation_is_applied() -> None:
    exif = PillowImage.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    assert decode(encoded(flat("RGB", RED), "JPEG", exif=exif)).size == (10, 20)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty"),
        (b"words", "not an image"),
        (encoded(flat("RGB", RED), "PNG")[:-30], "truncated"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n", "not an image"),
    ],
    ids=["empty", "text", "cut short", "postscript"],
)
def test_unreadable_files_have_a_reason(content: bytes, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.jpg"
    path.write_bytes(content)
    with pytest.raises(UnreadableImage, match=reason):
        read_image(path)
    images, rejected = inspect_images([Sample("bad.jpg", path, 0)], threads=1)
    assert images == []
    assert rejected[0][0] == "bad.jpg"
    assert reason in rejected[0][1]


def test_a_bomb_is_rejected_before_it_is_decompressed(monkeypatch: pytest.MonkeyPatch) -> None:
    content = encoded(PillowImage.new("L", (3000, 3000)), "PNG")
    monkeypatch.setattr(images_module, "MAX_PIXELS", 1_000_000)
    with pytest.raises(UnreadableImage, match="3000x3000 pixels"):
        decode(content)


def test_a_missing_file_and_a_folder(tmp_path: Path) -> None:
    (tmp_path / "folder.jpg").mkdir()
    samples = [Sample(name, tmp_path / name, 0) for name in ("gone.jpg", "folder.jpg")]
    _, rejected = inspect_images(samples, threads=2)
    assert [name for name, _ in rejected] == ["gone.jpg", "folder.jpg"]
    assert "No such file" in rejected[0][1]


@pytest.mark.parametrize("mode", ["center", "squash", "border"])
@pytest.mark.parametrize("crop", [0.875, 1.0])
def test_preprocessing_is_timms_to_the_bit(mode: str, crop: float, photos: Path) -> None:
    import torch
    from timm.data import create_transform

    from tlkit.data.loader import normalize

    resize = {"center": "crop", "squash": "squash", "border": "pad"}[mode]
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    ours = Preprocess(160, resize, crop, "bicubic", mean, std)  # type: ignore[arg-type]
    theirs = create_transform(
        (3, 160, 160), crop_pct=crop, crop_mode=mode, interpolation="bicubic", mean=mean, std=std
    )
    for number in range(1, 4):
        image = read_image(photos / f"dog.{number}.jpg")
        assert torch.equal(normalize(ours(image)[None], ours)[0], theirs(image))


def test_squashing_keeps_the_whole_image_by_default() -> None:
    base = Preprocess(size=224, crop=0.875)
    assert base.override({"resize": "squash"}).crop == 1.0
    assert base.override({"resize": "squash", "crop": 0.9}).crop == 0.9
    assert base.override({"size": 96}) == Preprocess(size=96, crop=0.875)


def test_pixels_of_a_view_depend_on_image_and_number_alone(photos: Path) -> None:
    from networks import REGISTRY

    from tlkit.data.image_cache import ImageCache
    from tlkit.data.views import View, ViewReader

    preprocess = Preprocess(size=64)
    transform = REGISTRY.make("augmentation", "affine", {"rotation": 20, "flip": True}, preprocess)
    samples = [Sample(f"cat.{number}.jpg", photos / f"cat.{number}.jpg", 0) for number in (1, 2)]
    (one, two), _ = inspect_images(samples, threads=1)
    first, second = (View(preprocess, transform, (number,), "affine") for number in (1, 2))
    reader = ViewReader()
    (pixels,) = reader.get(one, [first], remember=True)
    reader.get(two, [first], remember=True)
    assert np.array_equal(reader.get(one, [first], remember=True)[0], pixels)
    uncached = ViewReader(ImageCache(memory=0, disk=0))
    assert np.array_equal(uncached.get(one, [first], remember=True)[0], pixels)
    again, other = ViewReader().get(one, [first, second], remember=False)
    assert np.array_equal(again, pixels)
    assert not np.array_equal(other, pixels)
