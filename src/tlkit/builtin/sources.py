"""The built-in source of class folders, and what it shares with other sources."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from natsort import natsort_keygen, ns

from tlkit.errors import DataError, close_matches
from tlkit.parts.source import IMAGE_SUFFIXES, SPLITS, Sample, Source, SplitName
from tlkit.plugins.hookspecs import hookimpl
from tlkit.utils.formatting import bulleted

if TYPE_CHECKING:
    from tlkit.plugins.registry import Register

SPLIT_NAMES: Mapping[str, SplitName] = {
    "train": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
}
#: How many problems an error lists.
PROBLEMS_SHOWN = 10

_natsort_key = natsort_keygen(alg=ns.IGNORECASE)


@hookimpl
def tlkit_sources(register: Register) -> None:
    register("folder", folder)


def folder(root: Path, *, unlabelled: Path | None = None) -> Source:
    """Lists the images of a folder per class: ``<root>/cat/1.jpg``.

    The folders of the classes may also be in a folder per split: ``<root>/train/cat/1.jpg``.

    Args:
        root: the folder that contains them.
        unlabelled: a folder of images without labels.
    """
    check_folder(root)
    excluded = unlabelled.resolve() if unlabelled else None
    subfolders = [path for path in _subfolders(root) if path.resolve() != excluded]
    class_folders: list[tuple[SplitName | None, Path]] = [
        (split, path)
        for split, parent in _split_folders(root, subfolders).items()
        for path in _subfolders(parent)
        if path.resolve() != excluded
    ] or [(None, path) for path in subfolders]
    classes = tuple(sorted({path.name for _, path in class_folders}, key=natural))
    check_classes(root, classes)
    labels = {name: label for label, name in enumerate(classes)}
    images = {path: find_images(path) for _, path in class_folders}
    if empty := [str(path) for path, files in images.items() if not files]:
        head = "class folders without images: fill them or remove them"
        raise DataError(bulleted(head, empty, PROBLEMS_SHOWN))
    samples = [
        Sample(name, image, labels[path.name], split)
        for split, path in class_folders
        for name, image in zip(_ids(images[path], path, root), images[path], strict=True)
    ]
    check_every_split(root, classes, samples)
    return Source(classes, samples, list_unlabelled(root, unlabelled))


def find_images(folder: Path) -> list[Path]:
    """Returns the image files in a folder and all folders below it, in natural order, without hidden ones."""

    def fail(error: OSError) -> None:
        raise _unreadable(error) from error

    top = os.fspath(folder)
    images: list[str] = []  # strings until the end: a Path costs more than all the rest
    visited: set[str] = set()
    for parent, subfolders, files in os.walk(top, onerror=fail, followlinks=True):
        subfolders[:] = sorted(filter(_is_visible, subfolders), key=natural)
        if (target := os.path.realpath(parent)) in visited:  # a link can lead back to a parent
            subfolders.clear()
            continue
        visited.add(target)
        images += [os.path.join(parent, file) for file in files if _is_image(file)]  # noqa: PTH118
    return [Path(image) for image in sorted(images, key=lambda image: natural(image[len(top) :]))]


def natural(text: str) -> tuple[object, str]:
    """Returns a sort key that puts ``cat.2`` before ``cat.10``, and ignores case unless strings tie."""
    return _natsort_key(text), text


def _is_image(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES and _is_visible(name)  # noqa: PTH122


def _is_visible(name: str) -> bool:
    return not name.startswith(".") and name != "__MACOSX"


def _subfolders(parent: Path) -> list[Path]:
    try:
        with os.scandir(parent) as entries:  # unlike a Path, an entry raises where it may not be looked at
            subfolders = [Path(entry.path) for entry in entries if entry.is_dir() and _is_visible(entry.name)]
    except OSError as error:
        raise _unreadable(error) from error
    return sorted(subfolders, key=lambda path: natural(path.name))


def _unreadable(error: OSError) -> DataError:
    return DataError(f"{error.filename} cannot be read: {error.strerror}")


def _split_folders(root: Path, subfolders: Sequence[Path]) -> dict[SplitName, Path]:
    """Returns the folder of each split; nothing if the root contains the class folders themselves."""
    of_splits = [path for path in subfolders if path.name.casefold() in SPLIT_NAMES and _subfolders(path)]
    others = [path.name for path in subfolders if path not in of_splits]
    if of_splits and others:
        raise DataError(
            f"{root} contains split folders ({', '.join(path.name for path in of_splits)}) and others "
            f"({', '.join(others)}): move the others away, or name a folder of images without labels "
            "with the option 'unlabelled'"
        )
    if subfolders and not of_splits and all(name.casefold() in SPLIT_NAMES for name in others):
        raise DataError(
            f"{root}: {', '.join(others)} contain no class folders: sort their images into a folder per "
            "class, or list them in a file for the source 'csv'"
        )
    splits: dict[SplitName, Path] = {}
    for path in of_splits:
        split = SPLIT_NAMES[path.name.casefold()]
        if split in splits:
            raise DataError(f"{root}: {splits[split].name} and {path.name} are the same split: keep one")
        splits[split] = path
    return splits


def list_unlabelled(root: Path, folder: Path | None) -> list[Sample]:
    """Returns the images of a folder of images without labels; none without such a folder."""
    if folder is None:
        return []
    check_folder(folder)
    images = find_images(folder)
    if not images:
        raise DataError(f"{folder} holds no images: add some, or leave 'unlabelled' out")
    return [Sample(name, image) for name, image in zip(_ids(images, folder, root), images, strict=True)]


def _ids(images: Sequence[Path], folder: Path, root: Path) -> list[str]:
    """Returns the path of each image that is below `folder`, relative to `root`."""
    above = Path(os.path.relpath(folder, root)).as_posix()
    prefix = "" if above == "." else f"{above}/"
    return [prefix + image.relative_to(folder).as_posix() for image in images]


def check_folder(folder: Path) -> None:
    """Raises DataError unless there is such a folder."""
    if folder.is_dir():
        return
    if folder.exists():
        raise DataError(
            f"{folder} is a file: name the folder that contains the images, or a .csv file with the columns "
            "path and label"
        )
    parent = folder.parent
    siblings = [path.name for path in _subfolders(parent)] if parent.is_dir() else []
    raise DataError(f"folder {folder} does not exist{close_matches(folder.name, siblings)}")


def check_classes(source: Path, classes: Sequence[str]) -> None:
    """Raises unless a folder or CSV file has at least two classes."""
    if len(classes) > 1:
        return
    count = f"only one class, {classes[0]!r}" if classes else "no classes"
    if source.is_file():
        raise DataError(f"{source} has {count}: it needs a label column with at least two values")
    tables = sorted(table.name for table in source.glob("*.csv"))
    listed = f"; or name its {' or '.join(tables)} instead, if it lists paths and labels" if tables else ""
    raise DataError(f"{source} has {count}: it needs a folder per class, at least two{listed}")


def check_every_split(source: Path, classes: Sequence[str], samples: Sequence[Sample]) -> None:
    """Raises unless each split that a folder or CSV file assigns has images of every class."""
    present = {(sample.split, label) for sample in samples for label in sample.class_indices}
    splits = [split for split in SPLITS if any((split, label) in present for label in range(len(classes)))]
    missing = [
        f"{split} has no images of class {name!r}"
        for split in splits
        for label, name in enumerate(classes)
        if (split, label) not in present
    ]
    if missing:
        raise DataError(bulleted(f"{source}: every split needs every class", missing, PROBLEMS_SHOWN))
