"""Describes the labelled images that `tlkit.fit` and other questions accept as a recipe's table of data.

A recipe must find its images again: to resume, to report, in another process. Images that are not files are
therefore written to tlkit's cache folder, as PNG under the hash of their pixels, and a list of images is
written there as a CSV file.
"""

from __future__ import annotations

import csv
import importlib
import os
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image as PillowImage

from tlkit.data.image_paths import why_no_images
from tlkit.data.images import ImageInMemory, UnreadableImage
from tlkit.data.labelled import describe_labels, describe_source
from tlkit.errors import DataError
from tlkit.experiment.observer import Observer
from tlkit.inference.pixels import ImageLike, Images, as_images, decode_image
from tlkit.parts.task import SEPARATOR, Task
from tlkit.recipe.schema import PartSpec
from tlkit.utils.atomic_write import atomic_write
from tlkit.utils.directories import generated_folder
from tlkit.utils.formatting import bulleted, shortlist
from tlkit.utils.hashing import digest
from tlkit.utils.sequences import as_list

#: How many problems an error lists, and how many columns a message names.
SHOWN, COLUMNS_SHOWN = 10, 20


class Table(Protocol):
    """A `datasets.Dataset` or `datasets.DatasetDict`."""

    def save_to_disk(self, dataset_path: str, /) -> object:
        """Writes it into a folder."""


#: What they take.
TrainingImages = Images | torch.utils.data.Dataset[Any] | Table


@dataclass(frozen=True)
class ImageData:
    """Labelled images, as a recipe names them.

    Attributes:
        name: what their run is called.
        source: the recipe's source.
        root: its root.
    """

    name: str
    source: PartSpec
    root: Path

    def table(self) -> dict[str, Any]:
        """Returns the recipe's table of data."""
        source = self.source.table() if self.source.options else self.source.name
        return {"source": source, "root": str(self.root)}


def image_data(
    images: TrainingImages,
    labels: str | Iterable[object] | None,
    observer: Observer,
    task: Task = "multiclass",
    separator: str | None = None,
) -> ImageData:
    """Describes labelled images; writes those that are not files, and lists, to the cache folder.

    Args:
        images: as for `tlkit.fit`.
        labels: of a list of images; None of all else.
        observer: is shown the progress, and told which columns of a CSV file are taken for classes.
        task: "multilabel": each image may have several labels, in a list or in one string.
        separator: what is between them in a string; ``|`` unless given.

    Raises:
        DataError: they are nothing that can be trained on.
    """
    if labels is not None:
        return _listed(zip(*_paired(images, labels), strict=True), observer, task, separator)
    if isinstance(images, str | Path):
        path = Path(images)
        data = _path_data(path) if task == "multiclass" else _labels_data(path, observer, separator)
        if columns := [name for name in ("split", "group") if f"{name}_column" in data.source.options]:
            observer.note(f"{' and '.join(columns)}: as in {path.name}'s columns of that name")
        return data
    if _is_of_datasets(images):
        if task == "multilabel":
            raise DataError(
                "of several labels per image, fit takes no data set of Hugging Face's: give the images, and "
                "a list of labels for each"
            )
        return _table_data(images)
    if isinstance(images, torch.utils.data.Dataset):
        total = len(images) if hasattr(images, "__len__") else 0
        return _listed(_items(images), observer, task, separator, total)
    raise DataError(
        f"images without labels ({type(images).__name__}): give their labels, too, or a folder per class, a "
        "CSV file, a torch.utils.data.Dataset, or a data set of Hugging Face's"
    )


def _path_data(path: Path) -> ImageData:
    """Describes a folder per class or a CSV file."""
    if not path.exists():
        raise DataError(why_no_images(str(path)) or f"{path} does not exist")
    source, root = describe_source(path)
    return ImageData(path.stem if source.name == "csv" else root.name, source, root)


def _labels_data(path: Path, observer: Observer, separator: str | None) -> ImageData:
    """Describes a CSV file of images with several labels."""
    source, root = describe_labels(path, separator=separator)
    if columns := source.options.get("label_columns"):
        observer.note(f"classes: {shortlist(columns, COLUMNS_SHOWN)} (columns of {path.name})")
    return ImageData(path.stem, source, root)


def _paired(images: Any, labels: Any) -> tuple[list[ImageLike], list[object]]:
    listed_images, listed_labels = list(as_images(images)), [_plain(label) for label in as_list(labels)]
    if len(listed_images) != len(listed_labels):
        raise DataError(f"there are {len(listed_images):,} images and {len(listed_labels):,} labels")
    return listed_images, listed_labels


def _plain(label: object) -> object:
    """Returns the number in a tensor of one."""
    return label.item() if isinstance(label, torch.Tensor) and label.numel() == 1 else label


def _class_names(data: Any) -> Sequence[str] | None:
    """Returns the class names of a data set, if it, or one that it wraps, has `classes`."""
    if isinstance(data, torch.utils.data.Subset):
        return _class_names(data.dataset)
    if isinstance(data, torch.utils.data.ConcatDataset):
        first, *others = map(_class_names, data.datasets)
        if any(names != first for names in others):
            raise DataError(
                "the data sets that are put together have different classes: their numbers differ"
            )
        return first
    names = getattr(data, "classes", None)
    return names if isinstance(names, Sequence) else None


def _items(data: Any) -> Iterator[tuple[ImageLike, object]]:
    """Yields a data set's images and labels; numbers become the names in its `classes`, if it has them."""
    names = _class_names(data)
    in_order = (data[index] for index in range(len(data))) if hasattr(data, "__len__") else iter(data)
    for index, item in enumerate(in_order):
        if not isinstance(item, Sequence) or isinstance(item, str) or len(item) < 2:
            raise DataError(f"item {index} of the data set is not an image and its label, but {type(item)}")
        image, label = item[0], _plain(item[1])
        if isinstance(image, torch.Tensor):
            raise DataError(
                f"item {index} of the data set is a tensor, {image.dtype} {tuple(image.shape)}: leave its "
                "transform to tensors out, since tlkit resizes and normalises images as the backbone needs it"
            )
        if names is not None and isinstance(label, int | np.integer):
            if not 0 <= label < len(names):
                raise DataError(
                    f"item {index} of the data set has the label {label}; it has {len(names)} classes"
                )
            label = names[int(label)]
        yield image, label


def _listed(
    items: Iterable[tuple[ImageLike, object]],
    observer: Observer,
    task: Task,
    separator: str | None,
    total: int = 0,
) -> ImageData:
    """Writes a CSV file of images and labels, for the source of that name."""
    paths: list[Path] = []
    labels: list[tuple[str, ...]] = []
    problems: list[str] = []
    copies, classes = Counter[str](), dict[str, object]()
    with observer.progress("writing images", total, "images") as tick:
        for index, (image, label) in enumerate(items):
            try:
                labels.append(
                    (_class_name(label, classes),)
                    if task == "multiclass"
                    else _several_names(label, SEPARATOR if separator is None else separator)
                )
                paths.append(_file(image, copies))
            except UnreadableImage as error:
                problems.append(f"image {index}: {error}")
            tick(1)
    problems += [f"{path} is given twice" for path, count in Counter(paths).items() if count > 1]
    if problems:
        raise DataError(bulleted("images and labels that cannot be used", problems, SHOWN))
    if not paths:
        raise DataError("there are no images")
    try:
        root = Path(os.path.commonpath([path.parent for path in paths]))
    except ValueError as error:  # Windows' drives
        raise DataError(f"the images have no folder in common: {error}") from error
    return _write_list([path.relative_to(root).as_posix() for path in paths], labels, root, task)


def _write_list(paths: Sequence[str], labels: Sequence[tuple[str, ...]], root: Path, task: Task) -> ImageData:
    """Writes a CSV file with a column of labels or, where images have several, one for each class."""
    classes = sorted(set().union(*labels))
    if len(classes) < 2:
        count = f"one class, {classes[0]!r}" if classes else "no classes"
        raise DataError(f"the labels have {count}: a classifier needs at least two")
    rows: list[tuple[str, ...]]
    options: dict[str, Any] = {}
    if task == "multilabel":
        options["label_columns"] = classes
        marks = [[str(int(name in names)) for name in classes] for names in labels]
        rows = [("path", *classes), *((path, *row) for path, row in zip(paths, marks, strict=True))]
    else:
        rows = [("path", "label"), *((path, name) for path, (name,) in zip(paths, labels, strict=True))]
    file = generated_folder() / "lists" / f"{digest(str(root), rows)}.csv"
    with _writing(file), atomic_write(file) as temporary:
        with temporary.open("w", encoding="utf-8", newline="") as lines:
            csv.writer(lines).writerows(rows)
    return ImageData("images", PartSpec(name="csv", options={"file": str(file), **options}), root)


def _class_name(label: object, classes: dict[str, object]) -> str:
    """Returns the name of a label's class; `classes` are those so far, with the label of each."""
    if isinstance(label, Collection) and not isinstance(label, str):
        raise UnreadableImage(
            f"its label is {label!r}: a class needs a name; for several labels per image, set "
            'task="multilabel"'
        )
    name = str(label)
    missing = label is None or label != label  # NaN, as in tables
    if missing or name != name.strip() or not name:
        raise UnreadableImage(f"its label is {label!r}: a class needs a name, without spaces around it")
    if classes.setdefault(name, label) != label:
        raise UnreadableImage(f"its label is {label!r}, and another one {classes[name]!r}: write them alike")
    return name


def _several_names(labels: object, separator: str) -> tuple[str, ...]:
    """Returns the names of an image's classes, none or several: a list of them, or one string."""
    if isinstance(labels, str):
        labels = labels.split(separator) if labels else []
    # a row of a matrix of 0 and 1 has no names
    if not isinstance(labels, list | tuple | set | frozenset) or not all(
        isinstance(name, str) and name and name == name.strip() for name in labels
    ):
        raise UnreadableImage(
            f"its labels are {labels!r}: give a list of class names, without spaces around them, or one "
            f"string with {separator!r} between them"
        )
    return tuple(labels)


def _file(image: ImageLike, copies: Counter[str]) -> Path:
    """Returns an image's file; one that is in memory only is written, each copy under a name of its own."""
    if isinstance(image, str | Path):
        path = Path(os.path.abspath(image))  # noqa: PTH100  resolve() would follow links
        if not path.is_file():
            raise UnreadableImage(f"{path} does not exist")
        return path
    held = ImageInMemory.of("image", decode_image(image))
    copies[held.sha256] += 1
    copy = f"-{copies[held.sha256]}" if copies[held.sha256] > 1 else ""
    path = generated_folder() / "images" / held.sha256[:2] / f"{held.sha256}{copy}.png"
    if not path.is_file():
        _write_png(path, held.pixels)
    return path


def _write_png(path: Path, pixels: PillowImage.Image) -> None:
    with _writing(path), atomic_write(path, durable=False) as temporary:
        pixels.save(temporary, "PNG", compress_level=1)  # a third of the time, and little larger


def _is_of_datasets(images: object) -> bool:
    """Returns whether an object is a table, or tables by split, of the library datasets."""
    return type(images).__module__.partition(".")[0] == "datasets"


def _table_data(tables: Any) -> ImageData:
    """Writes tables of the library datasets as its own `save_to_disk` does, for the source of that name."""
    if not hasattr(tables, "save_to_disk"):
        raise DataError(f"a {type(tables).__name__} cannot be read twice: load the data without streaming")
    parts = tables if isinstance(tables, Mapping) else {"": tables}
    # datasets' own fingerprints, of the data and all that was done to them
    key = digest(*((split, table._fingerprint) for split, table in parts.items()))
    folder = generated_folder() / "datasets" / "saved" / key
    if not folder.is_dir():
        with _writing(folder), _without_bars(), atomic_write(folder) as temporary:
            tables.save_to_disk(str(temporary))
    return ImageData("dataset", PartSpec(name="datasets"), folder)


@contextmanager
def _without_bars() -> Iterator[None]:
    """Hides the progress bars of the library datasets, which has been imported by whoever has a table."""
    library = importlib.import_module("datasets")
    disabled = library.are_progress_bars_disabled()
    library.disable_progress_bars()
    try:
        yield
    finally:
        if not disabled:
            library.enable_progress_bars()


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Turns an error of the file system into a DataError."""
    try:
        yield
    except OSError as error:
        raise DataError(
            f"images cannot be written to {path.parent}: {error.strerror or error}. Free some space there, "
            "or name another folder in TLKIT_CACHE"
        ) from error
