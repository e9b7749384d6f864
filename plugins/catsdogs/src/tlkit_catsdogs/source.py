"""The photos of Kaggle's 'Dogs vs. Cats', in either of the two layouts they are distributed in."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from tlkit import IMAGE_SUFFIXES, DataError, Download, Sample, Source

CLASSES = ("cat", "dog")
MICROSOFT = Download(
    url=(
        "https://download.microsoft.com/download/3/E/1/3E1C3F21-ECDB-4869-8368-6DEBA77B919F/"
        "kagglecatsanddogs_5340.zip"
    ),
    size=824_887_076,
    sha256="b7974bd00a84a99921f36ee4403f089853777b5ae8d151c76a86e64900334af9",
)
KAGGLE_NAME = re.compile(r"(cat|dog)\.\d+\.jpg")
NAMES_SHOWN = 5
KAGGLE = "Kaggle's 'Dogs vs. Cats' (https://www.kaggle.com/c/dogs-vs-cats)"
LABELLED_ADVICE = (
    f"point data.root at them (--set data.root=PATH), or get them from {KAGGLE}, or Microsoft's "
    f"re-package of it with tlkit fetch ({MICROSOFT.url})"
)
UNLABELLED_ADVICE = (
    f"point data.unlabelled at them (--set data.unlabelled=PATH), get test1 from {KAGGLE}, "
    "or leave data.unlabelled out"
)


def catsdogs(root: Path, *, unlabelled: Path | None = None) -> Source:
    """Photos of cats and dogs, in Kaggle's layout or in Microsoft's.

    Kaggle's are all in one folder, ``cat.0.jpg`` and ``dog.0.jpg``; Microsoft's are in
    ``PetImages/Cat/0.jpg`` and ``PetImages/Dog/0.jpg``, where `root` is PetImages or its parent folder.
    Before the photos are downloaded, the source is empty and lists the download.

    Args:
        root: the folder of labelled photos.
        unlabelled: a folder of photos without labels, Kaggle's ``test1``.
    """
    if not _any_photos(root):
        return Source(CLASSES, (), downloads=(MICROSOFT,))
    samples = _microsoft(root) or _kaggle(root)
    return Source(CLASSES, samples, _unlabelled(root, unlabelled), (MICROSOFT,))


def _any_photos(root: Path) -> bool:
    """Returns whether `root` holds any part of the data set, complete or not."""
    folders = [parent / name.capitalize() for parent in (root, root / "PetImages") for name in CLASSES]
    return root.is_dir() and (bool(_images(root)) or any(folder.is_dir() for folder in folders))


def _microsoft(root: Path) -> list[Sample]:
    """Returns the photos in Microsoft's layout; none if the class folders are not there."""
    for parent in (root, root / "PetImages"):
        folders = [parent / name.capitalize() for name in CLASSES]
        if all(folder.is_dir() for folder in folders):
            by_class = [_images(folder) for folder in folders]
            for folder, images in zip(folders, by_class, strict=True):
                if not images:
                    raise DataError(f"{folder} holds no photos: {LABELLED_ADVICE}")
            return [_sample(image, root, label) for label, images in enumerate(by_class) for image in images]
    return []


def _kaggle(root: Path) -> list[Sample]:
    """Returns the photos in Kaggle's layout."""
    images = _images(root)
    if others := [image.name for image in images if not KAGGLE_NAME.fullmatch(image.name)]:
        shown = ", ".join(others[:NAMES_SHOWN]) + (" …" if len(others) > NAMES_SHOWN else "")
        raise DataError(
            f"{root} holds {len(others)} images that are not named cat.N.jpg or dog.N.jpg: {shown}; "
            "move them away, or use the source 'folder' for photos of your own"
        )
    names = [image.name.split(".")[0] for image in images]
    if missing := [f"{name}s" for name in CLASSES if name not in names]:
        raise DataError(f"{root} holds no photos of {' and '.join(missing)}: {LABELLED_ADVICE}")
    return [_sample(image, root, CLASSES.index(name)) for image, name in zip(images, names, strict=True)]


def _unlabelled(root: Path, folder: Path | None) -> Sequence[Sample]:
    if folder is None:
        return ()
    if not folder.is_dir():
        raise DataError(f"{folder}, for the unlabelled photos, is not a folder: {UNLABELLED_ADVICE}")
    images = _images(folder)
    if not images:
        raise DataError(f"{folder} holds no photos: {UNLABELLED_ADVICE}")
    return [_sample(image, root) for image in images]


def _sample(image: Path, root: Path, label: int | None = None) -> Sample:
    return Sample(Path(os.path.relpath(image, root)).as_posix(), image, label)


def _images(folder: Path) -> list[Path]:
    """Returns the images directly in a folder, ``cat.2.jpg`` before ``cat.10.jpg``."""
    images = (
        path
        for path in folder.iterdir()
        if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".") and path.is_file()
    )
    return sorted(images, key=lambda image: (_natural(image.name), image.name))


def _natural(name: str) -> list[str | int]:
    """Returns a sort key that compares the numbers in a name as numbers."""
    return [int(piece) if index % 2 else piece for index, piece in enumerate(re.split(r"(\d+)", name))]
